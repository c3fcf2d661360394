"""The server interface that everything above gRPC is written against: raw bytes in, raw bytes out.

Two engines stand behind it: `queue_engine` (grpcio's completion queue, fast) and `aio_engine` (public grpc.aio, the
reference). A third one belongs to the simulation. All of it lives on one asyncio loop: handlers are called on the loop,
and calls may be answered on the loop only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import grpc
from grpc import StatusCode as StatusCode  # ours to export

from kourou_service.metrics.calls import CallMeters

Metadata = Sequence[tuple[str, str | bytes]]
"""Lower-case keys; the value of a key that ends in `-bin` is bytes, all others are printable ASCII."""


class AbortCall(Exception):
    """Raised by a handler to end its call with this status."""

    def __init__(self, code: StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Limits and timings of an engine."""

    max_message_bytes: int = 16 * 1024 * 1024
    """Largest message in either direction; a larger request is answered RESOURCE_EXHAUSTED."""
    max_metadata_bytes: int = 16 * 1024
    """Largest sum of the headers of a call, as HTTP/2 counts them (name + value + 32 each)."""
    max_concurrent_calls: int = 16_384
    """Unary calls accepted and not answered yet; the next one is answered RESOURCE_EXHAUSTED at once."""
    max_concurrent_streams: int = 16_384
    """Streams open at the same time over all connections; the next one is answered RESOURCE_EXHAUSTED at once."""
    keepalive_interval_s: float = 60.0
    """Time without traffic after which a connection is pinged."""
    keepalive_timeout_s: float = 20.0
    """Time without an answer to that ping after which the connection is closed."""
    min_client_ping_interval_s: float = 5.0
    """Clients may ping this often, calls or not; one that pings more is disconnected."""


class Call(Protocol):
    """What unary calls and streams have in common."""

    @property
    def method(self) -> str:
        """The full path, `/package.Service/Method`."""
        ...

    @property
    def metadata(self) -> MutableMapping[str, str | bytes]:
        """The headers by lower-case key, the last one of a repeated key; built when first asked for, and then kept."""
        ...

    @property
    def peer(self) -> str:
        """The client's address, such as `ipv4:127.0.0.1:1234`."""
        ...

    @property
    def authority(self) -> str:
        """The call's `:authority` (what the client believes to talk to), "" if unknown."""
        ...

    @property
    def listener(self) -> str:
        """The name given to `Engine.listen` for the listener this call came by."""
        ...

    @property
    def deadline_s(self) -> float | None:
        """Seconds left until the client's deadline (0 once passed), None if it has none."""
        ...

    @property
    def cancelled(self) -> bool:
        """The client went away or the deadline passed. A unary call only notices after `on_cancel`."""
        ...


class UnaryCall(Call, Protocol):
    """Answered exactly once, by `reply` or `fail`, at any time; an answer to a cancelled call is dropped."""

    def reply(self, response: bytes, trailing: Metadata = ()) -> None:
        """Answers OK. Raises RuntimeError if the call was answered before."""
        ...

    def fail(self, code: StatusCode, details: str) -> None:
        """Answers with an error status. Raises RuntimeError if the call was answered before."""
        ...

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Calls back once, on the loop, if the client goes away or the deadline passes before the answer.

        For calls that may wait; it costs one more operation, so calls that are answered promptly do without.
        One callback a call: raises RuntimeError if there is one, or if the call was answered.
        """
        ...


class StreamCall(Call, Protocol):
    """A server-streaming or bidirectional call; one `receive` and one `send` may be under way at a time."""

    async def receive(self) -> bytes | None:
        """The client's next message; None when it has half-closed its side.

        A client that dies may look half-closed for an instant, before the handler is cancelled: what must tell a
        goodbye from a breakdown needs a message for the goodbye.
        """
        ...

    async def send(self, response: bytes) -> None:
        """Returns when there is room for the next message, so a slow reader slows the handler down.

        Raises CancelledError when the client is gone.
        """
        ...

    async def send_last(self, response: bytes) -> None:
        """The last message. It may leave together with the final status, when the handler returns."""
        ...

    async def flush(self) -> None:
        """Returns when all that was sent has left; raises CancelledError when the client is gone before."""
        ...

    def set_trailing(self, metadata: Metadata) -> None:
        """The metadata that go with the final status; the last call before the end counts."""
        ...


UnaryHandler = Callable[[bytes, UnaryCall], None]
"""Called on the loop. AbortCall ends the call with its status, any other exception is logged and ends it INTERNAL."""

StreamHandler = Callable[[StreamCall], Awaitable[None]]
"""Runs as a task, which is cancelled when the client goes away or the deadline passes. Its return ends the stream OK,
AbortCall with that status, any other exception is logged and ends it INTERNAL. A server-streaming handler begins with
`request = await call.receive()`."""


class UnderWay(NamedTuple):
    """Calls accepted and not answered yet."""

    unary: int
    streams: int


class Engine(Protocol):
    """A gRPC server. Unknown methods are answered UNIMPLEMENTED, calls over a limit RESOURCE_EXHAUSTED.

    Order of use: `unary`/`stream` and `listen` (inside the running loop), `start`, `stop`. It cannot be started again.
    """

    @property
    def kind(self) -> str:
        """`queue` or `aio`."""
        ...

    @property
    def meters(self) -> CallMeters:
        """What its doors tell of their calls; whoever made the engine reads it."""
        ...

    @property
    def under_way(self) -> UnderWay: ...

    def unary(self, path: str, handler: UnaryHandler) -> None:
        """Registers the handler of a unary method by its full path; raises ValueError if the path is taken."""
        ...

    def stream(self, path: str, handler: StreamHandler) -> None:
        """Registers the handler of a server-streaming or bidirectional method; ValueError as above."""
        ...

    def listen(self, address: str, credentials: grpc.ServerCredentials | None = None, *, name: str = "") -> str:
        """Binds "host:port" (port 0: any free one) and returns "host:port" as bound; calls come from `start` on.

        `name` is what `Call.listener` says of the calls that come this way. Raises OSError if the address cannot be
        bound, also if another process or engine listens there.
        """
        ...

    async def start(self) -> None:
        """Begins to serve on all listeners."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Takes no new calls, lets the running ones end for up to `grace_s`, then cancels the rest; can be repeated."""
        ...
