"""The clients' side of the simulated network: `kourou.transport.Transport`."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from grpc import StatusCode

from kourou.protocol.method import AnyMethod, BidiMethod, ServerStreamMethod, UnaryMethod
from kourou.transport import Reply, RpcError
from tests.simulation.server_side import ServerCall
from tests.simulation.wire import Call, Machine, run_in

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
Metadata = Sequence[tuple[str, str]]


class SimulatedTransport:
    """kourou.transport.Transport of one node."""

    def __init__(self, node: Machine, find: Callable[[str], Machine]) -> None:
        self._node = node
        self._find = find
        self._channels: dict[str, SimulatedChannel] = {}

    def channel(self, address: str) -> "SimulatedChannel":
        if address not in self._channels:
            self._channels[address] = SimulatedChannel(self._node, self._find(address.rpartition(":")[0]), address)
        return self._channels[address]

    def reconnect(self, address: str) -> None:
        """Calls have no connection here that could be replaced."""

    async def close(self) -> None:
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close()


class SimulatedChannel:
    def __init__(self, node: Machine, server: Machine, address: str) -> None:
        self._node = node
        self._server = server
        self._address = address
        self._calls: set[SimulatedCall[Any, Any]] = set()

    async def unary(
        self, method: UnaryMethod[Q, A], request: Q, *, timeout_s: float, metadata: Metadata = ()
    ) -> Reply[A]:
        call = self._open(method, timeout_s, metadata)
        try:
            await call.write(request)
            message = await call.read()
            if message is None:
                raise RpcError(StatusCode.INTERNAL, "the call ended without an answer")
            assert await call.read() is None, "a unary call has one answer"
            return Reply(message, call.trailing)
        finally:
            call.cancel()

    async def server_stream(
        self, method: ServerStreamMethod[Q, A], request: Q, *, timeout_s: float, metadata: Metadata = ()
    ) -> AsyncGenerator[A, None]:
        call = self._open(method, timeout_s, metadata)
        try:
            await call.write(request)
            await call.done_writing()
            while (message := await call.read()) is not None:
                yield message
        finally:
            call.cancel()

    def bidi(self, method: BidiMethod[Q, A], *, metadata: Metadata = ()) -> "SimulatedCall[Q, A]":
        return self._open(method, None, metadata)

    async def close(self) -> None:
        for call in list(self._calls):
            call.cancel()

    def _open(self, method: AnyMethod, timeout_s: float | None, metadata: Metadata) -> "SimulatedCall[Any, Any]":
        call: SimulatedCall[Any, Any] = SimulatedCall(
            self._node, self._server, self._address, method, timeout_s, metadata
        )
        self._calls.add(call)
        call.when_ended(self._calls.discard)
        return call


class SimulatedCall(Generic[Q, A]):
    """kourou.transport.BidiCall; the other kinds of calls are made of it."""

    def __init__(
        self,
        client: Machine,
        server: Machine,
        address: str,
        method: AnyMethod,
        timeout_s: float | None,
        metadata: Metadata,
    ) -> None:
        self.trailing: Mapping[str, str | bytes] = {}
        self._response = method.response
        self._arrived: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._end: RpcError | None = None  # code OK stands for a clean end
        self._when_ended: Callable[[Any], None] = lambda _: None
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(timeout_s, self._timed_out) if timeout_s is not None else None
        deadline_s = None if timeout_s is None else loop.time() + timeout_s
        self._call = Call(client, server, address)
        self._call.broken = self._finish
        self._server_call = ServerCall(self._call, self, method.path, dict(metadata), deadline_s)
        self._call.up.send(self._server_call.reach)

    def when_ended(self, callback: Callable[[Any], None]) -> None:
        self._when_ended = callback

    async def write(self, request: Q) -> None:
        self._raise_if_ended()
        self._call.up.send(self._server_call.arrived, request.SerializeToString())
        await asyncio.sleep(0)

    async def read(self) -> A | None:
        while not self._arrived:
            if self._end is not None:
                if self._end.code is StatusCode.OK:
                    return None
                raise self._end
            self._news.clear()
            await self._news.wait()
        return self._response.FromString(self._arrived.popleft())  # type: ignore[return-value]

    async def done_writing(self) -> None:
        self._raise_if_ended()
        self._call.up.send(self._server_call.arrived, None)

    def cancel(self) -> None:
        # A coroutine of a killed process may be closed after the simulation, and then cancels on no loop.
        if self._end is None and asyncio._get_running_loop() is not None:
            self._finish(RpcError(StatusCode.CANCELLED, "the call was cancelled"))
            self._call.up.send(self._server_call.cancelled_by_client)

    # The server's answers, as they arrive.

    def answered(self, message: bytes) -> None:
        run_in(self._call.client_process, self._answered, message)

    def ended(self, end: RpcError, trailing: Mapping[str, str | bytes]) -> None:
        """The status of the call; OK for a clean end."""
        run_in(self._call.client_process, self._ended, end, trailing)

    def _answered(self, message: bytes) -> None:
        if self._end is None:
            self._arrived.append(message)
            self._news.set()

    def _ended(self, end: RpcError, trailing: Mapping[str, str | bytes]) -> None:
        self.trailing = trailing
        self._call.end()
        self._finish(end)

    def _raise_if_ended(self) -> None:
        if self._end is not None:
            raise self._end

    def _timed_out(self) -> None:
        if self._end is None:
            self._finish(RpcError(StatusCode.DEADLINE_EXCEEDED, "the deadline passed", sent=self._call.accepted))
            self._call.up.send(self._server_call.cancelled_by_client)

    def _finish(self, end: RpcError) -> None:
        if self._end is not None:
            return
        self._end = end
        if self._deadline is not None:
            self._deadline.cancel()
        self._news.set()
        self._when_ended(self)
