"""What unary calls and streams of the queue engine have in common."""

from __future__ import annotations

import time
from collections.abc import MutableMapping

from kourou_service.engine.interface import Metadata, StatusCode
from kourou_service.engine.private_api import (
    BatchEvent,
    CoreCall,
    RequestCallEvent,
    receive_close,
    send_initial_metadata,
    send_status,
)
from kourou_service.engine.status import MAX_DETAILS_CHARS

NO_FLAGS = 0
NO_DEADLINE_S = 1e12  # grpcio gives some 9e18 for "none"


class QueueCall:
    """The facts of a call. `_core` is None once the call has ended for us: gRPC frees a call when nobody holds it."""

    __slots__ = ("_core", "_details", "_headers", "listener", "method")

    def __init__(self, event: RequestCallEvent, method: str, listener: str) -> None:
        self._core: CoreCall | None = event.call
        self._details = event.call_details
        self._headers: Metadata | dict[str, str | bytes] = event.invocation_metadata
        self.method = method
        self.listener = listener

    @property
    def metadata(self) -> MutableMapping[str, str | bytes]:
        headers = self._headers
        if not isinstance(headers, dict):
            self._headers = headers = dict(headers)
        return headers

    @property
    def peer(self) -> str:
        return self._core.peer().decode() if self._core is not None else ""

    @property
    def authority(self) -> str:
        return self._details.host.decode("ascii", "replace")

    @property
    def deadline_s(self) -> float | None:
        deadline = self._details.deadline
        return None if deadline > NO_DEADLINE_S else max(0.0, deadline - time.time())


def ignore(_event: BatchEvent) -> None:
    """The tag of a batch after which nothing is left to do."""


def refuse(core: CoreCall, code: StatusCode, details: str) -> None:
    """Ends a call of which nothing has been taken yet."""
    core.start_server_batch(
        (
            send_initial_metadata((), NO_FLAGS),
            send_status((), status_number(code), details[:MAX_DETAILS_CHARS], NO_FLAGS),
            receive_close(NO_FLAGS),
        ),
        ignore,
    )


def status_number(code: StatusCode) -> int:
    number: int = code.value[0]
    return number
