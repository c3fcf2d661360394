"""The services' side of the simulated network: `kourou_service.engine.Engine`."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from grpc import StatusCode

from kourou.transport import RpcError
from kourou_service.engine import AbortCall, Metadata, StreamHandler, UnaryHandler, UnderWay
from kourou_service.metrics.calls import CallMeters
from tests.simulation.wire import Call, Machine, run_in

FIRST_FREE_PORT = 40_000


class SimulatedEngine:
    """kourou_service.engine.Engine of one process."""

    kind = "simulated"

    def __init__(self, node: Machine) -> None:
        self.meters = CallMeters()
        self.process = node.process
        self._node = node
        self._unary: dict[str, UnaryHandler] = {}
        self._streams: dict[str, StreamHandler] = {}
        self._listeners: dict[str, str] = {}
        self._running: dict[ServerCall, None] = {}
        self._stopping = False

    @property
    def under_way(self) -> UnderWay:
        return UnderWay(len(self._running), 0)

    def unary(self, path: str, handler: UnaryHandler) -> None:
        self._check_free(path)
        self._unary[path] = handler

    def stream(self, path: str, handler: StreamHandler) -> None:
        self._check_free(path)
        self._streams[path] = handler

    def listen(self, address: str, credentials: Any = None, *, name: str = "") -> str:
        port = int(address.rpartition(":")[2]) or self._free_port()
        bound = f"{self._node.name}:{port}"
        if bound in self._node.servers or bound in self._listeners:
            raise OSError(f"cannot listen on {address}: address already in use")
        self._listeners[bound] = name
        return bound

    async def start(self) -> None:
        for address in self._listeners:
            self._node.servers[address] = self

    async def stop(self, grace_s: float) -> None:
        self._stopping = True
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + grace_s
        while self._running and loop.time() < give_up_s:  # noqa: ASYNC110 - simulated sleep costs nothing
            await asyncio.sleep(0.01)
        for call in list(self._running):
            call.abort()
        for address in self._listeners:
            self._node.servers.pop(address, None)

    def accept(self, call: "ServerCall") -> None:
        if self._stopping:
            call.fail(StatusCode.UNAVAILABLE, "the server is stopping")
        elif call.method in self._unary:
            self._running[call] = None
            call.serve_unary(self._unary[call.method])
        elif call.method in self._streams:
            self._running[call] = None
            call.serve_stream(self._streams[call.method])
        else:
            call.fail(StatusCode.UNIMPLEMENTED, f"no method {call.method}")

    def ended(self, call: "ServerCall") -> None:
        self._running.pop(call, None)

    def listener_name(self, address: str) -> str:
        return self._listeners[address]

    def _check_free(self, path: str) -> None:
        if path in self._unary or path in self._streams:
            raise ValueError(f"{path} is registered")

    def _free_port(self) -> int:
        taken = {*self._node.servers, *self._listeners}
        return next(port for port in range(FIRST_FREE_PORT, 65_536) if f"{self._node.name}:{port}" not in taken)


class Caller(Protocol):
    """Where the answers go: the client's side of the same call."""

    def answered(self, message: bytes) -> None: ...
    def ended(self, end: RpcError, trailing: Mapping[str, str | bytes]) -> None: ...


class ServerCall:
    """kourou_service.engine.UnaryCall and StreamCall."""

    def __init__(
        self, call: Call, caller: Caller, method: str, metadata: Mapping[str, str | bytes], deadline_at_s: float | None
    ) -> None:
        self.method, self.metadata = method, dict(metadata)
        self.cancelled = False
        self._call, self._caller = call, caller
        self._deadline_at_s = deadline_at_s
        self._engine: SimulatedEngine | None = None
        self._handler: UnaryHandler | None = None
        self._task: asyncio.Task[None] | None = None
        self._requests: deque[bytes | None] = deque()
        self._news = asyncio.Event()
        self._answered = False
        self._on_cancel: Callable[[], None] = lambda: None
        self._trailing: Mapping[str, str | bytes] = {}

    @property
    def peer(self) -> str:
        return f"sim:{self._call.client.name}"

    @property
    def authority(self) -> str:
        return self._call.address

    @property
    def listener(self) -> str:
        assert self._engine is not None
        return self._engine.listener_name(self._call.address)

    @property
    def deadline_s(self) -> float | None:
        if self._deadline_at_s is None:
            return None
        return max(0.0, self._deadline_at_s - asyncio.get_running_loop().time())

    def reply(self, response: bytes, trailing: Metadata = ()) -> None:
        self._answer_once()
        if not self.cancelled:
            self._call.down.send(self._caller.answered, response)
        self._end(StatusCode.OK, "", dict(trailing))

    def fail(self, code: StatusCode, details: str) -> None:
        self._answer_once()
        self._end(code, details, {})

    def on_cancel(self, callback: Callable[[], None]) -> None:
        self._on_cancel = callback

    async def receive(self) -> bytes | None:
        while not self._requests:
            self._news.clear()
            await self._news.wait()
        if self._requests[0] is None:
            return None  # and again, if asked again
        return self._requests.popleft()

    async def send(self, response: bytes) -> None:
        if not self.cancelled:
            self._call.down.send(self._caller.answered, response)
        await asyncio.sleep(0)

    async def send_last(self, response: bytes) -> None:
        await self.send(response)

    async def flush(self) -> None:
        """Nothing waits."""

    def set_trailing(self, metadata: Metadata) -> None:
        self._trailing = dict(metadata)

    # What arrives from the client.

    def reach(self) -> None:
        """Who listens is looked up when the call arrives, not when it leaves."""
        server = self._call.server.servers.get(self._call.address)
        if server is None:
            refused = RpcError(StatusCode.UNAVAILABLE, f"failed to connect to {self._call.address}", sent=False)
            self._call.down.send(self._caller.ended, refused, {})
            return
        assert isinstance(server, SimulatedEngine)
        self._engine = server
        self._call.accepted = True
        self._call.server_process = server.process
        self._call.gone = self._client_gone
        run_in(server.process, server.accept, self)

    def arrived(self, message: bytes | None) -> None:
        if self._engine is not None:
            run_in(self._engine.process, self._take, message)

    def cancelled_by_client(self) -> None:
        self._call.end()
        if self._engine is not None:
            run_in(self._engine.process, self._client_gone)

    # What the engine does with it.

    def serve_unary(self, handler: UnaryHandler) -> None:
        self._handler = handler

    def serve_stream(self, handler: StreamHandler) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(handler))

    def abort(self) -> None:
        """The server stops."""
        if self._task is not None:
            self._task.cancel()
        if not self._answered:
            self.fail(StatusCode.UNAVAILABLE, "the server is stopping")

    def _take(self, message: bytes | None) -> None:
        if self._task is not None:
            self._requests.append(message)
            self._news.set()
        elif self._handler is not None and message is not None and not self.cancelled:
            try:
                self._handler(message, self)
            except AbortCall as abort:
                self.fail(abort.code, abort.details)

    async def _run(self, handler: StreamHandler) -> None:
        code, details = StatusCode.OK, ""
        try:
            await handler(self)
        except AbortCall as abort:
            code, details = abort.code, abort.details
        except Exception as fault:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"fault in {self.method}", "exception": fault}
            )
            code, details = StatusCode.INTERNAL, "internal fault"
        if not self._answered:
            self._answered = True
            self._end(code, details, self._trailing)

    def _client_gone(self) -> None:
        if self.cancelled or self._answered:
            return
        self.cancelled = True
        assert self._engine is not None
        self._engine.ended(self)
        self._on_cancel()
        if self._task is not None:
            self._task.cancel()

    def _answer_once(self) -> None:
        if self._answered:
            raise RuntimeError("the call was answered before")
        self._answered = True

    def _end(self, code: StatusCode, details: str, trailing: Mapping[str, str | bytes]) -> None:
        assert self._engine is not None
        self._engine.ended(self)
        if not self.cancelled:
            self._call.down.send(self._caller.ended, RpcError(code, details), trailing)
