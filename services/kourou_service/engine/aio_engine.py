"""The reference engine, on public grpc.aio: generic handlers on raw bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from typing import Any

import grpc
import grpc.aio as typed_aio

from kourou_service.engine.channel_args import bound_address, channel_args, require_free
from kourou_service.engine.interface import (
    AbortCall,
    EngineOptions,
    Metadata,
    StatusCode,
    StreamHandler,
    UnaryHandler,
    UnderWay,
)
from kourou_service.engine.status import MAX_DETAILS_CHARS, require_legal
from kourou_service.metrics.calls import CallMeters

# The types of these say too little, or wrong things.
grpc_aio: Any = typed_aio
Context = Any  # grpc.aio.ServicerContext
MethodHandler = Any  # grpc.RpcMethodHandler
unary_method_handler: Any = grpc.unary_unary_rpc_method_handler
stream_method_handler: Any = grpc.stream_stream_rpc_method_handler

log = logging.getLogger(__name__)


class AioCall:
    def __init__(self, context: Context, method: str, listener: str) -> None:
        self._context = context
        self.method = method
        self.listener = listener
        self.authority = ""  # grpc.aio does not tell
        self._metadata: dict[str, str | bytes] | None = None
        self.cancelled = False

    @property
    def metadata(self) -> MutableMapping[str, str | bytes]:
        if self._metadata is None:
            self._metadata = dict(self._context.invocation_metadata())
        return self._metadata

    @property
    def peer(self) -> str:
        return self._context.peer()

    @property
    def deadline_s(self) -> float | None:
        left: float | None = self._context.time_remaining()
        return left if left is None else max(0.0, left)


class AioUnaryCall(AioCall):
    def __init__(self, context: Context, method: str, listener: str) -> None:
        super().__init__(context, method, listener)
        self._answered = False
        self._on_cancel: Callable[[], None] | None = None
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def reply(self, response: bytes, trailing: Metadata = ()) -> None:
        require_legal(trailing)
        self._take_answer()
        if not self.answer.done():
            self._context.set_trailing_metadata(tuple(trailing))
            self.answer.set_result(response)

    def fail(self, code: StatusCode, details: str) -> None:
        self._take_answer()
        if not self.answer.done():
            self.answer.set_exception(AbortCall(code, details))

    def on_cancel(self, callback: Callable[[], None]) -> None:
        if self._answered or self._on_cancel is not None:
            raise RuntimeError(f"{self.method}: answered already, or a second on_cancel")
        self._on_cancel = callback

    def handle(self, handler: UnaryHandler, request: bytes) -> None:
        try:
            handler(request, self)
        except Exception as error:
            if not isinstance(error, AbortCall):
                log.exception("the handler of %s failed", self.method)
            if not self._answered:
                abort = error if isinstance(error, AbortCall) else AbortCall(StatusCode.INTERNAL, "internal error")
                self.fail(abort.code, abort.details)

    def cancel(self) -> None:
        if self._answered or self._on_cancel is None:
            return
        self.cancelled = True
        try:
            self._on_cancel()
        except Exception:
            log.exception("the on_cancel callback of %s failed", self.method)

    def _take_answer(self) -> None:
        if self._answered:
            raise RuntimeError(f"{self.method}: answered twice")
        self._answered = True


class AioStreamCall(AioCall):
    def __init__(self, context: Context, method: str, listener: str) -> None:
        super().__init__(context, method, listener)
        self._reading: asyncio.Task[Any] | None = None
        self._half_closed = False

    async def receive(self) -> bytes | None:
        if self._half_closed:
            return None
        reading = self._reading or asyncio.ensure_future(self._context.read())
        self._reading = reading
        # Shielded, since a handler may put a time limit on it, and the message must not be lost then.
        message = await asyncio.shield(reading)
        self._reading = None
        self._half_closed = message is grpc_aio.EOF
        return None if self._half_closed else message

    async def send(self, response: bytes) -> None:
        await self._context.write(response)

    async def send_last(self, response: bytes) -> None:
        await self.send(response)

    async def flush(self) -> None:
        """Nothing waits: each write is waited for."""

    def set_trailing(self, metadata: Metadata) -> None:
        require_legal(metadata)
        self._context.set_trailing_metadata(tuple(metadata))

    async def run(self, handler: StreamHandler) -> None:
        """In a task of its own, so that `cancelled` is set before the handler is cancelled."""
        task = asyncio.ensure_future(handler(self))
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            self.cancelled = True
            task.cancel()
            await asyncio.wait((task,))
            raise
        task.result()

    def release(self) -> None:
        if self._reading is not None:
            self._reading.cancel()


class Places:
    """How many calls of a kind may run at the same time."""

    def __init__(self, places: int, refusal: str) -> None:
        self._places = places
        self._refusal = refusal
        self.taken = 0

    async def take(self, context: Context) -> None:
        if self.taken >= self._places:
            await context.abort(StatusCode.RESOURCE_EXHAUSTED, self._refusal)
        self.taken += 1

    def give_back(self) -> None:
        self.taken -= 1


class UnaryRoute:
    def __init__(self, path: str, handler: UnaryHandler, places: Places) -> None:
        self._path = path
        self._handler = handler
        self._places = places

    def method_handler(self, listener: str) -> MethodHandler:
        async def behaviour(request: bytes, context: Context) -> bytes:
            await self._places.take(context)
            call = AioUnaryCall(context, self._path, listener)
            try:
                call.handle(self._handler, request)
                return await call.answer
            except AbortCall as abort:
                await context.abort(abort.code, abort.details[:MAX_DETAILS_CHARS])
                raise
            except asyncio.CancelledError:
                call.cancel()
                raise
            finally:
                self._places.give_back()

        return unary_method_handler(behaviour)


class StreamRoute:
    def __init__(self, path: str, handler: StreamHandler, places: Places) -> None:
        self._path = path
        self._handler = handler
        self._places = places

    def method_handler(self, listener: str) -> MethodHandler:
        async def behaviour(_requests: object, context: Context) -> None:
            await self._places.take(context)
            call = AioStreamCall(context, self._path, listener)
            try:
                await call.run(self._handler)
            except AbortCall as abort:
                await context.abort(abort.code, abort.details[:MAX_DETAILS_CHARS])
            except Exception:
                log.exception("the handler of %s failed", self._path)
                await context.abort(StatusCode.INTERNAL, "internal error")
            finally:
                call.release()
                self._places.give_back()

        return stream_method_handler(behaviour)


class GenericHandler(grpc.GenericRpcHandler):
    """Finds the handler of a path, for one listener."""

    def __init__(self, routes: dict[str, UnaryRoute | StreamRoute], listener: str) -> None:
        self._routes = routes
        self._listener = listener

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MethodHandler:
        route = self._routes.get(handler_call_details.method)
        return None if route is None else route.method_handler(self._listener)


class AioEngine:
    kind = "aio"

    def __init__(self, options: EngineOptions, meters: CallMeters) -> None:
        self.meters = meters
        self._options = options
        self._routes: dict[str, UnaryRoute | StreamRoute] = {}
        self._servers: list[Any] = []
        self._calls = Places(options.max_concurrent_calls, "too many concurrent calls")
        self._streams = Places(options.max_concurrent_streams, "too many concurrent streams")

    @property
    def under_way(self) -> UnderWay:
        return UnderWay(self._calls.taken, self._streams.taken)

    def unary(self, path: str, handler: UnaryHandler) -> None:
        self._add(path, UnaryRoute(path, handler, self._calls))

    def stream(self, path: str, handler: StreamHandler) -> None:
        self._add(path, StreamRoute(path, handler, self._streams))

    def _add(self, path: str, route: UnaryRoute | StreamRoute) -> None:
        if path in self._routes:
            raise ValueError(f"{path} has a handler already")
        self._routes[path] = route

    def listen(self, address: str, credentials: grpc.ServerCredentials | None = None, *, name: str = "") -> str:
        require_free(address)
        server = grpc_aio.server(options=channel_args(self._options))
        server.add_generic_rpc_handlers((GenericHandler(self._routes, name),))
        try:
            if credentials is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(str(error)) from None
        self._servers.append(server)
        return bound_address(address, port)

    async def start(self) -> None:
        for server in self._servers:
            await server.start()

    async def stop(self, grace_s: float) -> None:
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))
