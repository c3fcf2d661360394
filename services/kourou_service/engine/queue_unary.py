"""Unary calls on the completion queue: the hot path, three events and two batches a call."""

from __future__ import annotations

import logging
from collections.abc import Callable

from kourou_service.engine.interface import AbortCall, Metadata, StatusCode, UnaryHandler
from kourou_service.engine.private_api import (
    BatchEvent,
    RequestCallEvent,
    receive_close,
    receive_message,
    send_initial_metadata,
    send_message,
    send_status,
)
from kourou_service.engine.queue_call import (
    NO_FLAGS,
    QueueCall,
    ignore,
    refuse,
    status_number,
)
from kourou_service.engine.status import MAX_DETAILS_CHARS, require_legal

OK = status_number(StatusCode.OK)

log = logging.getLogger(__name__)


class UnaryRoute:
    """A method and its handler; `live` holds the calls of all methods that wait for their answer."""

    __slots__ = ("_handler", "_live", "_max_live", "_path")

    def __init__(self, path: str, handler: UnaryHandler, live: set[QueueUnaryCall], max_live: int) -> None:
        self._path = path
        self._handler = handler
        self._live = live
        self._max_live = max_live

    def accept(self, event: RequestCallEvent, listener: str) -> None:
        if len(self._live) >= self._max_live:
            refuse(event.call, StatusCode.RESOURCE_EXHAUSTED, "too many concurrent calls")
            return
        call = QueueUnaryCall(event, self._path, listener, self._handler, self._live)
        self._live.add(call)
        event.call.start_server_batch((receive_message(NO_FLAGS),), call.received)


class QueueUnaryCall(QueueCall):
    __slots__ = ("_answered", "_handler", "_live", "_on_cancel", "cancelled")

    def __init__(
        self,
        event: RequestCallEvent,
        method: str,
        listener: str,
        handler: UnaryHandler,
        live: set[QueueUnaryCall],
    ) -> None:
        super().__init__(event, method, listener)
        self._handler = handler
        self._live = live
        self._answered = False
        self._on_cancel: Callable[[], None] | None = None
        self.cancelled = False

    def received(self, event: BatchEvent) -> None:
        request = event.batch_operations[0].message()
        if request is None:  # the client went away, or the message is too large and gRPC has answered that
            self.release()
            return
        try:
            self._handler(request, self)
        except AbortCall as abort:
            self._fail_unless_answered(abort.code, abort.details)
        except Exception:
            log.exception("the handler of %s failed", self.method)
            self._fail_unless_answered(StatusCode.INTERNAL, "internal error")

    def reply(self, response: bytes, trailing: Metadata = ()) -> None:
        if trailing:
            require_legal(trailing)
        if self._core is None:
            self._drop_answer()
        elif self._on_cancel is None:
            self._core.start_server_batch(
                (
                    send_initial_metadata((), NO_FLAGS),
                    send_message(response, NO_FLAGS),
                    send_status(trailing, OK, "", NO_FLAGS),
                    receive_close(NO_FLAGS),
                ),
                ignore,
            )
        else:  # the receive-close is under way since on_cancel
            self._core.start_server_batch(
                (
                    send_initial_metadata((), NO_FLAGS),
                    send_message(response, NO_FLAGS),
                    send_status(trailing, OK, "", NO_FLAGS),
                ),
                ignore,
            )
        self._answered = True
        self.release()

    def fail(self, code: StatusCode, details: str) -> None:
        if self._core is None:
            self._drop_answer()
        elif self._on_cancel is None:
            refuse(self._core, code, details)
        else:
            self._core.start_server_batch(
                (
                    send_initial_metadata((), NO_FLAGS),
                    send_status((), status_number(code), details[:MAX_DETAILS_CHARS], NO_FLAGS),
                ),
                ignore,
            )
        self._answered = True
        self.release()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        if self._answered or self._on_cancel is not None:
            raise RuntimeError(f"{self.method}: answered already, or a second on_cancel")
        self._on_cancel = callback
        if self._core is not None:
            self._core.start_server_batch((receive_close(NO_FLAGS),), self._closed)

    def release(self) -> None:
        """Gives the call back to gRPC, which cancels it if it was not answered; answers are dropped from now on."""
        self._core = None
        self._live.discard(self)

    def _drop_answer(self) -> None:
        if self._answered:
            raise RuntimeError(f"{self.method}: answered twice")

    def _fail_unless_answered(self, code: StatusCode, details: str) -> None:
        if not self._answered:
            self.fail(code, details)

    def _closed(self, event: BatchEvent) -> None:
        if self._answered or not event.batch_operations[0].cancelled():
            return
        self.cancelled = True
        self.release()
        assert self._on_cancel is not None
        try:
            self._on_cancel()
        except Exception:
            log.exception("the on_cancel callback of %s failed", self.method)
