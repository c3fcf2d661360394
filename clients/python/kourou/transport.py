"""The one seam between the clients and the network: calls to an address, answered or failed with `RpcError`.

`GrpcTransport` is the real one, on grpc.aio. Tests and the simulation stand in for it with their own `Transport`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc import StatusCode, aio

from kourou.protocol.method import BidiMethod, ServerStreamMethod, UnaryMethod

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
Q_in = TypeVar("Q_in", bound=Message, contravariant=True)
A_out = TypeVar("A_out", bound=Message, covariant=True)

Metadata = Sequence[tuple[str, str]]

MAX_MESSAGE_BYTES = 16 * 1024 * 1024

# grpcio has no types; what it gives and takes is checked by the types of our methods.
_aio = cast("Any", aio)

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A broken connection that nobody closed is noticed within 30 s, also by streams that have nothing to say.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # gRPC would let two minutes pass between attempts; a broker that restarts is back within seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]

# Otherwise gRPC's channels of one process share a connection to the same address, old or new.
_OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
_LEAVING_GRACE_S = 30.0
"""Enough for the longest poll."""

# The only texts that gRPC gives before a request is on a connection. If they ever change, the outcome counts as
# unknown, which is the careful reading.
_NOT_SENT = ("failed to connect to all addresses", "errors resolving ")


class RpcError(Exception):
    """A call that the network or the server's gRPC layer ended with a status other than OK."""

    def __init__(self, code: StatusCode, details: str, *, sent: bool = True) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details
        self.sent = sent
        """False: the request certainly never left this process, so the server did not act on it."""


@dataclass(frozen=True, slots=True)
class Reply(Generic[A]):
    message: A
    trailing: Mapping[str, str | bytes]
    """The server's trailing metadata; the last of a repeated key."""


class BidiCall(Protocol[Q_in, A_out]):
    """An open stream in both directions."""

    async def write(self, request: Q_in) -> None:
        """Raises RpcError when the stream has ended."""
        ...

    async def read(self) -> A_out | None:
        """The next answer; None when the server ended the stream with OK, RpcError with any other status."""
        ...

    async def done_writing(self) -> None: ...

    def cancel(self) -> None: ...


class Channel(Protocol):
    """The way to one address; connects when needed and again after a broken connection."""

    async def unary(
        self, method: UnaryMethod[Q, A], request: Q, *, timeout_s: float, metadata: Metadata = ()
    ) -> Reply[A]:
        """Raises RpcError."""
        ...

    def server_stream(
        self, method: ServerStreamMethod[Q, A], request: Q, *, timeout_s: float, metadata: Metadata = ()
    ) -> AsyncGenerator[A, None]:
        """Raises RpcError while iterated; closing it (`contextlib.aclosing`) cancels the call."""
        ...

    def bidi(self, method: BidiMethod[Q, A], *, metadata: Metadata = ()) -> BidiCall[Q, A]: ...

    async def close(self) -> None: ...


class Transport(Protocol):
    def channel(self, address: str) -> Channel:
        """The channel to "host:port", always the same one for the same address. Raises RpcError after `close`."""
        ...

    def reconnect(self, address: str) -> None:
        """Further calls go over a new connection; those under way may end on the old one."""
        ...

    async def close(self) -> None:
        """Closes all channels; their calls end with RpcError."""
        ...


class GrpcTransport:
    """The real network: one HTTP/2 connection for each address, over TLS with credentials, else in plaintext."""

    def __init__(self, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._credentials = credentials
        self._channels: dict[str, GrpcChannel] = {}
        self._left: set[asyncio.Task[None]] = set()
        self._closed = False

    def channel(self, address: str) -> Channel:
        if self._closed:
            raise RpcError(StatusCode.CANCELLED, "the transport was closed", sent=False)
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = GrpcChannel(address, self._credentials)
        return channel

    def reconnect(self, address: str) -> None:
        channel = self._channels.pop(address, None)
        if channel is None or self._closed:
            return
        self._channels[address] = GrpcChannel(address, self._credentials, [_OWN_CONNECTION])
        leave = asyncio.create_task(channel.close(_LEAVING_GRACE_S))
        self._left.add(leave)
        leave.add_done_callback(self._left.discard)

    async def close(self) -> None:
        self._closed = True
        for leave in list(self._left):
            leave.cancel()
        await asyncio.gather(*self._left, return_exceptions=True)
        for channel in self._channels.values():
            await channel.close()


class GrpcChannel:
    """A channel of grpc.aio; made on first use, since it belongs to the running loop."""

    def __init__(
        self,
        address: str,
        credentials: grpc.ChannelCredentials | None = None,
        further_options: Sequence[tuple[str, int]] = (),
    ) -> None:
        options = [*_OPTIONS, *further_options]
        if credentials is None:
            self._channel: Any = _aio.insecure_channel(address, options=options)
        else:
            self._channel = _aio.secure_channel(address, credentials, options=options)
        self._callables: dict[str, Any] = {}

    async def unary(
        self, method: UnaryMethod[Q, A], request: Q, *, timeout_s: float, metadata: Metadata = ()
    ) -> Reply[A]:
        with _rpc_errors():
            call = self._callable("unary_unary", method)(request, timeout=timeout_s, metadata=tuple(metadata))
            message = cast("A", await call)
            trailing = await call.trailing_metadata()
        return Reply(message, dict(trailing or ()))

    async def server_stream(
        self, method: ServerStreamMethod[Q, A], request: Q, *, timeout_s: float, metadata: Metadata = ()
    ) -> AsyncGenerator[A, None]:
        with _rpc_errors():
            call = self._callable("unary_stream", method)(request, timeout=timeout_s, metadata=tuple(metadata))
            try:
                async for message in cast("AsyncIterator[A]", call):
                    yield message
            finally:
                call.cancel()

    def bidi(self, method: BidiMethod[Q, A], *, metadata: Metadata = ()) -> BidiCall[Q, A]:
        with _rpc_errors():
            return _GrpcBidiCall(self._callable("stream_stream", method)(metadata=tuple(metadata)))

    async def close(self, grace_s: float | None = None) -> None:
        await self._channel.close(grace_s)

    def _callable(self, kind: str, method: UnaryMethod[Q, A] | ServerStreamMethod[Q, A] | BidiMethod[Q, A]) -> Any:
        made = self._callables.get(method.path)
        if made is None:
            make = getattr(self._channel, kind)
            made = self._callables[method.path] = make(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return made


class _GrpcBidiCall(Generic[Q, A]):
    def __init__(self, call: Any) -> None:
        self._call = call

    async def write(self, request: Q) -> None:
        with _rpc_errors():
            await self._call.write(request)

    async def read(self) -> A | None:
        with _rpc_errors():
            message = await self._call.read()
        return None if message is _aio.EOF else cast("A", message)

    async def done_writing(self) -> None:
        with _rpc_errors():
            await self._call.done_writing()

    def cancel(self) -> None:
        self._call.cancel()


@contextmanager
def _rpc_errors() -> Generator[None, None, None]:
    try:
        yield
    except aio.AioRpcError as error:
        code, details = error.code(), error.details() or ""
        sent = not (code is StatusCode.UNAVAILABLE and details.startswith(_NOT_SENT))
        raise RpcError(code, details, sent=sent) from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Not our task was cancelled but the call: by cancel() or by closing the channel.
        raise RpcError(StatusCode.CANCELLED, "the call was cancelled or its channel closed") from None
    except (_aio.UsageError, asyncio.InvalidStateError) as error:
        raise RpcError(StatusCode.UNAVAILABLE, str(error), sent=False) from None
