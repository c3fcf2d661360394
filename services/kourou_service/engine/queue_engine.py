"""The fast engine: gRPC's completion queue served from the asyncio loop."""

from __future__ import annotations

import asyncio
import logging

import grpc

from kourou_service.engine.channel_args import bound_address, channel_args, require_free
from kourou_service.engine.interface import EngineOptions, StatusCode, StreamHandler, UnaryHandler, UnderWay
from kourou_service.engine.private_api import (
    CompletionQueue,
    RequestCallEvent,
    add_port,
    new_completion_queue,
    new_server,
)
from kourou_service.engine.queue_call import refuse
from kourou_service.engine.queue_pump import QueuePump
from kourou_service.engine.queue_stream import StreamRoute, Tasks
from kourou_service.engine.queue_unary import QueueUnaryCall, UnaryRoute
from kourou_service.metrics.calls import CallMeters

OUTSTANDING_REQUESTS = 64  # per listener; what arrives beyond them waits in gRPC, which bounds it
CANCEL_TIMEOUT_S = 5.0  # for handlers and gRPC to end what was cancelled

Routes = dict[bytes, UnaryRoute | StreamRoute]

log = logging.getLogger(__name__)


class Listener:
    """One gRPC server with one port, since gRPC does not tell which port of a server a call came by."""

    def __init__(
        self,
        options: EngineOptions,
        queue: CompletionQueue,
        routes: Routes,
        address: str,
        credentials: grpc.ServerCredentials | None,
        name: str,
    ) -> None:
        require_free(address)
        self._queue = queue
        self._routes = routes
        self._name = name
        self.server = new_server(channel_args(options), queue)
        port = add_port(self.server, address, credentials)
        if port == 0:
            raise OSError(f"cannot listen on {address}")
        self.address = bound_address(address, port)
        self._stopping = False
        self.stopped = asyncio.Event()

    def start(self) -> None:
        self.server.start()
        for _ in range(OUTSTANDING_REQUESTS):
            self._request_call()

    def stop(self) -> None:
        self._stopping = True
        self.server.shutdown(self._queue, lambda _event: self.stopped.set())

    def _request_call(self) -> None:
        self.server.request_call(self._queue, self._queue, self._accept)

    def _accept(self, event: RequestCallEvent) -> None:
        if not event.success:  # what was outstanding at the stop comes back so
            return
        if not self._stopping:
            self._request_call()
        route = self._routes.get(event.call_details.method)
        if route is None:
            path = event.call_details.method.decode(errors="replace")
            refuse(event.call, StatusCode.UNIMPLEMENTED, f"unknown method {path}")
        else:
            route.accept(event, self._name)


class QueueEngine:
    kind = "queue"

    def __init__(self, options: EngineOptions, meters: CallMeters) -> None:
        self.meters = meters
        self._options = options
        self._queue = new_completion_queue()
        self._routes: Routes = {}
        self._listeners: list[Listener] = []
        self._calls: set[QueueUnaryCall] = set()
        self._tasks: Tasks = set()
        self._pump: QueuePump | None = None
        self._stopped: asyncio.Future[None] | None = None

    @property
    def under_way(self) -> UnderWay:
        return UnderWay(len(self._calls), len(self._tasks))

    def unary(self, path: str, handler: UnaryHandler) -> None:
        self._add(path, UnaryRoute(path, handler, self._calls, self._options.max_concurrent_calls))

    def stream(self, path: str, handler: StreamHandler) -> None:
        self._add(path, StreamRoute(path, handler, self._tasks, self._options.max_concurrent_streams))

    def _add(self, path: str, route: UnaryRoute | StreamRoute) -> None:
        if path.encode() in self._routes:
            raise ValueError(f"{path} has a handler already")
        self._routes[path.encode()] = route

    def listen(self, address: str, credentials: grpc.ServerCredentials | None = None, *, name: str = "") -> str:
        listener = Listener(self._options, self._queue, self._routes, address, credentials, name)
        self._listeners.append(listener)
        return listener.address

    async def start(self) -> None:
        if self._pump is not None or not self._listeners:
            raise RuntimeError("the engine was started before, or has no listener")
        servers = [listener.server for listener in self._listeners]
        self._pump = QueuePump(self._queue, servers, asyncio.get_running_loop())
        for listener in self._listeners:
            listener.start()
        self._pump.start()

    async def stop(self, grace_s: float) -> None:
        if self._stopped is None:
            self._stopped = asyncio.ensure_future(self._stop(grace_s))
        await asyncio.shield(self._stopped)

    async def _stop(self, grace_s: float) -> None:
        if self._pump is None:
            self._listeners.clear()
            self._queue.shutdown()
            return
        for listener in self._listeners:
            listener.stop()
        if not await self._all_ended(grace_s):
            for listener in self._listeners:
                listener.server.cancel_all_calls()
            for call in tuple(self._calls):
                call.release()
            if not await self._all_ended(CANCEL_TIMEOUT_S):
                # A queue with operations under way must not be shut down, so it is left to the end of the process.
                log.error("%d streams did not end when they were cancelled", len(self._tasks))
                return
        for listener in self._listeners:
            listener.server.destroy()
        self._queue.shutdown()
        await self._pump.ended()

    async def _all_ended(self, timeout_s: float) -> bool:
        """Whether all calls ended within that time; gRPC reports a server stopped when it has no call left."""
        try:
            async with asyncio.timeout(timeout_s):
                for listener in self._listeners:
                    await listener.stopped.wait()
                if self._tasks:
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            return False
        return True
