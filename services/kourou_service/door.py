"""From raw bytes to messages and back, for methods whose responses carry an apache.rocketmq.v2.Status.

A refusal goes into that status; what is no such message at all ends the call with INVALID_ARGUMENT; a fault of ours is
logged and answered INTERNAL_SERVER_ERROR, without its traceback.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import structlog
from google.protobuf.message import DecodeError, Message

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.method import ServerStreamMethod, UnaryMethod
from kourou_service.engine import AbortCall, Call, Engine, StatusCode, StreamCall, UnaryCall
from kourou_service.logs import current_call, identity
from kourou_service.metrics.calls import Code, Followed
from kourou_service.refusal import Refused

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

_logger = structlog.stdlib.get_logger(__name__)
STALL_S = 60.0
"""Who takes nothing for so long gets nothing further: what is held meanwhile, such as a lock, is wanted by others."""
_running: set[asyncio.Task[None]] = set()  # the loop itself keeps only weak references


def serve_unary(
    engine: Engine,
    method: UnaryMethod[Q, A],
    handler: Callable[[Q, Call], Awaitable[A]],
    *,
    long_polling: bool = False,
) -> None:
    """Registers a handler that may take its time; each call is a task, cancelled with the call.

    `long_polling`: its calls wait for news, so how long they take says nothing.
    """
    meter = engine.meters.of(method.path)

    async def answer(request: bytes, call: UnaryCall, started: float) -> None:
        current_call.set(call)
        followed = meter.follow(call)
        code: Code = StatusCode.CANCELLED
        try:
            response = await respond(request, call, followed)
            call.reply(response.SerializeToString())
            code = _code_of(response)
        except AbortCall as problem:
            call.fail(problem.code, problem.details)
            code = problem.code
        finally:
            meter.done(started, code, followed, waited=long_polling)

    async def respond(data: bytes, call: UnaryCall, followed: Followed | None) -> A:
        try:
            request = parse(method.request, data)
            if followed is not None:
                followed.about(request)
            return await handler(request, call)
        except AbortCall:
            raise
        except Exception as problem:
            return refusal(method.response, problem, call, followed)

    def start(request: bytes, call: UnaryCall) -> None:
        task = asyncio.get_running_loop().create_task(answer(request, call, perf_counter()))
        _running.add(task)
        task.add_done_callback(_running.discard)
        call.on_cancel(lambda: _cancel(task))

    engine.unary(method.path, start)


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


class Ended(NamedTuple):
    """How a stream ended."""

    code: Code = definition_pb2.OK
    waited: bool = False
    """For news that were not there when it was called."""


def serve_stream(
    engine: Engine,
    method: ServerStreamMethod[Q, A],
    handler: Callable[[Q, StreamCall], Awaitable[Ended | None]],
    *,
    long_polling: bool = False,
) -> None:
    """Registers a server-streaming handler, which sends its answers itself, and says how it ended, if not just OK.

    `long_polling`: its calls may wait for news; one that is cancelled did.
    """
    meter = engine.meters.of(method.path)

    async def answer(call: StreamCall) -> None:
        started = perf_counter()
        current_call.set(call)
        followed = meter.follow(call)
        ended = Ended(StatusCode.CANCELLED, long_polling)
        try:
            request = await call.receive()
            if request is None:
                raise AbortCall(StatusCode.INVALID_ARGUMENT, "the call brought no request")
            ended = await respond(request, call, followed)
        except AbortCall as problem:
            ended = Ended(problem.code)
            raise
        finally:
            meter.done(started, ended.code, followed, waited=ended.waited)

    async def respond(data: bytes, call: StreamCall, followed: Followed | None) -> Ended:
        try:
            request = parse(method.request, data)
            if followed is not None:
                followed.about(request)
            return await handler(request, call) or Ended()
        except AbortCall:
            raise
        except Exception as problem:
            response = refusal(method.response, problem, call, followed)
            await call.send_last(response.SerializeToString())
            return Ended(_code_of(response))

    engine.stream(method.path, answer)


async def send_in_time(call: StreamCall, response: Message) -> None:
    """The engine lets little wait behind what is under way, so a slow reader slows the sender down.

    Raises AbortCall when nothing is taken for `STALL_S`.
    """
    try:
        async with asyncio.timeout(STALL_S):
            await call.send(response.SerializeToString())
    except TimeoutError:
        raise AbortCall(StatusCode.DEADLINE_EXCEEDED, f"nothing was taken for {STALL_S:.0f} s") from None


def _code_of(response: Any) -> int:
    return response.status.code


def parse(type_: type[Q], data: bytes) -> Q:
    """Raises AbortCall when the bytes are no such message."""
    try:
        return type_.FromString(data)
    except DecodeError:
        raise no_such(type_) from None


def no_such(type_: type[Message]) -> AbortCall:
    """For bytes that are no such request."""
    return AbortCall(StatusCode.INVALID_ARGUMENT, f"the request is no {type_.DESCRIPTOR.full_name}")


def refusal(response: type[A], problem: Exception, call: Call, followed: Followed | None) -> A:
    """The answer that says why not."""
    why = reason(problem, call)
    if followed is not None:
        followed.refused(why.message)
    fields: dict[str, Any] = {"status": why}
    return response(**fields)


def reason(problem: Exception, call: Call) -> definition_pb2.Status:
    """Why not."""
    if isinstance(problem, Refused):
        return status(problem.code, problem.message)
    _logger.error("a request failed", **identity(call), exc_info=problem)
    return status(definition_pb2.INTERNAL_SERVER_ERROR, "the server failed; its log says more")


def status(code: int, message: str) -> definition_pb2.Status:
    return definition_pb2.Status(code=code, message=message)  # type: ignore[arg-type]


OK = definition_pb2.Status(code=definition_pb2.OK, message="OK")


def client_id(call: Call) -> str:
    """The caller's id. Raises Refused when there is none, or one that is too long to be kept."""
    value = call.metadata.get("x-mq-client-id")
    if not value or not isinstance(value, str):
        raise Refused(definition_pb2.CLIENT_ID_REQUIRED, "the header x-mq-client-id is missing")
    if len(value) > 255:
        raise Refused(definition_pb2.CLIENT_ID_REQUIRED, "the client id is over 255 characters long")
    return value
