"""An engine without a network: calls reach the doors' handlers at once, as bytes: thousands cost little.

Still a call runs as part of the broker's process, and whoever waits for an answer when that dies is told that it did.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message
from grpc import StatusCode

from kourou.protocol.method import BidiMethod, ServerStreamMethod, UnaryMethod
from kourou.transport import Reply
from kourou_service.engine import AbortCall, Metadata, StreamHandler, UnaryHandler, UnderWay
from kourou_service.metrics.calls import CallMeters
from tests.simulation.time import Process

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

HANGS_AFTER_S = 120.0
"""No call may take longer: a door that never answers is a fault."""


class BrokerDown(Exception):
    """The process died before it answered: what became of the request is not known."""


class CallFailed(Exception):
    def __init__(self, code: StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code


class DirectCall:
    """kourou_service.engine.UnaryCall and StreamCall."""

    authority = "direct"
    listener = "local"
    peer = "sim:direct"

    def __init__(self, method: str, metadata: Mapping[str, str | bytes], timeout_s: float | None) -> None:
        self.method = method
        self.metadata = dict(metadata)
        self._loop = asyncio.get_running_loop()
        self._ends_s = None if timeout_s is None else self._loop.time() + timeout_s
        self.cancelled = False
        self.task: asyncio.Task[None] | None = None
        self.requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.answers: list[bytes] = []
        self.trailing: dict[str, str | bytes] = {}
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._on_cancel: Callable[[], None] = lambda: None

    @property
    def deadline_s(self) -> float | None:
        return None if self._ends_s is None else max(0.0, self._ends_s - self._loop.time())

    def reply(self, response: bytes, trailing: Metadata = ()) -> None:
        if self.cancelled:
            return
        if self.ended.done():
            raise RuntimeError("the call was answered before")
        self.answers.append(response)
        self.trailing = dict(trailing)
        self.ended.set_result(None)

    def fail(self, code: StatusCode, details: str) -> None:
        if not self.cancelled:
            self.ended.set_exception(CallFailed(code, details))

    def on_cancel(self, callback: Callable[[], None]) -> None:
        self._on_cancel = callback

    async def receive(self) -> bytes | None:
        return await self.requests.get()

    async def send(self, response: bytes) -> None:
        self.answers.append(response)
        await asyncio.sleep(0)

    async def send_last(self, response: bytes) -> None:
        await self.send(response)

    async def flush(self) -> None:
        """Nothing waits."""

    def set_trailing(self, metadata: Metadata) -> None:
        self.trailing = dict(metadata)

    def cancel(self) -> None:
        """The client gave up."""
        if self.ended.done():
            return
        self.cancelled = True
        self.ended.cancel()
        self._on_cancel()
        if self.task is not None:
            self.task.cancel()


class DirectEngine:
    """kourou_service.engine.Engine of one process, and the way to it."""

    kind = "direct"

    def __init__(self, process: Process) -> None:
        self.meters = CallMeters()
        self._process = process
        self._unary: dict[str, UnaryHandler] = {}
        self._streams: dict[str, StreamHandler] = {}
        self._running: dict[DirectCall, None] = {}
        self._stopping = False
        process.on_kill(self._killed)

    @property
    def under_way(self) -> UnderWay:
        return UnderWay(len(self._running), 0)

    def unary(self, path: str, handler: UnaryHandler) -> None:
        assert path not in self._unary
        self._unary[path] = handler

    def stream(self, path: str, handler: StreamHandler) -> None:
        assert path not in self._streams
        self._streams[path] = handler

    def listen(self, address: str, credentials: Any = None, *, name: str = "") -> str:
        return address

    async def start(self) -> None: ...

    async def stop(self, grace_s: float) -> None:
        """Streams end at once, as if grace_s had passed; other calls are answered first."""
        self._stopping = True
        for call in self._running:
            if call.task is not None and not call.ended.done():
                call.cancelled = True
                call.task.cancel()
                call.ended.set_exception(BrokerDown())
        unary = [call.ended for call in self._running if call.task is None and not call.ended.done()]
        if unary:
            await asyncio.wait(unary, timeout=grace_s)

    # The clients' side.

    def serves(self, path: str) -> bool:
        return path in self._unary or path in self._streams

    async def call(
        self, method: UnaryMethod[Q, A], request: Q, metadata: Mapping[str, str | bytes], timeout_s: float | None = None
    ) -> A:
        """Raises BrokerDown, CallFailed."""
        return (await self.reply(method, request, metadata, timeout_s)).message

    async def reply(
        self, method: UnaryMethod[Q, A], request: Q, metadata: Mapping[str, str | bytes], timeout_s: float | None = None
    ) -> Reply[A]:
        """The same, with the trailing metadata."""
        answer, trailing = await self.raw(method.path, request.SerializeToString(), metadata, timeout_s)
        return Reply(method.response.FromString(answer), trailing)

    async def raw(
        self, path: str, request: bytes, metadata: Mapping[str, str | bytes], timeout_s: float | None = None
    ) -> tuple[bytes, Mapping[str, str | bytes]]:
        """Any bytes, to any unary method."""
        call = self._begin(path, metadata, timeout_s)
        self._process.context.copy().run(self._hand, path, request, call)
        await self._end(call)
        return call.answers[0], call.trailing

    async def stream_call(
        self,
        method: ServerStreamMethod[Q, A],
        request: Q,
        metadata: Mapping[str, str | bytes],
        timeout_s: float | None = None,
    ) -> list[A]:
        """All answers of a server-streaming call. Raises BrokerDown, CallFailed."""
        answers = await self.raw_stream(method.path, request.SerializeToString(), metadata, timeout_s)
        return [method.response.FromString(answer) for answer in answers]

    async def raw_stream(
        self, path: str, request: bytes, metadata: Mapping[str, str | bytes], timeout_s: float | None = None
    ) -> list[bytes]:
        """Any bytes, to any server-streaming method."""
        call = self._begin(path, metadata, timeout_s)
        call.requests.put_nowait(request)
        self._serve(call)
        await self._end(call)
        return call.answers

    def open(self, method: BidiMethod[Any, Any], metadata: Mapping[str, str | bytes]) -> DirectCall:
        """A bidirectional stream: put into `requests`, read `answers`, `cancel` when done."""
        call = self._begin(method.path, metadata, None)
        call.ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._serve(call)
        return call

    def _begin(self, path: str, metadata: Mapping[str, str | bytes], timeout_s: float | None) -> DirectCall:
        if self._stopping or not self._process.alive:
            raise BrokerDown
        call = DirectCall(path, metadata, timeout_s)
        self._running[call] = None
        return call

    async def _end(self, call: DirectCall) -> None:
        hang = asyncio.get_running_loop().call_later(HANGS_AFTER_S, _hangs, call)
        try:
            await call.ended
        except asyncio.CancelledError:
            call.cancelled = False
            self._process.context.copy().run(_cancel, call)
            raise
        finally:
            hang.cancel()
            self._running.pop(call, None)

    def _hand(self, path: str, data: bytes, call: DirectCall) -> None:
        try:
            self._unary[path](data, call)
        except AbortCall as abort:
            call.fail(abort.code, abort.details)

    def _serve(self, call: DirectCall) -> None:
        call.task = self._process.start(self._run(call))

    async def _run(self, call: DirectCall) -> None:
        try:
            await self._streams[call.method](call)
        except AbortCall as abort:
            call.fail(abort.code, abort.details)
        else:
            if not call.ended.done():
                call.ended.set_result(None)

    def _killed(self) -> None:
        for call in self._running:
            if not call.ended.done():
                call.ended.set_exception(BrokerDown())


def _hangs(call: DirectCall) -> None:
    if not call.ended.done():
        call.ended.set_exception(AssertionError(f"{call.method} was not answered within {HANGS_AFTER_S} s"))


def _cancel(call: DirectCall) -> None:
    call.cancelled = True
    call._on_cancel()  # pyright: ignore[reportPrivateUsage]
    if call.task is not None:
        call.task.cancel()
