"""Calls of the API whose time has not come: refused clearly, each in its own response."""

from functools import partial
from time import perf_counter
from typing import Any

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_rpc
from kourou.protocol.method import UnaryMethod
from kourou_service.door import status
from kourou_service.engine import Engine, UnaryCall
from kourou_service.metrics.calls import Meter

_LATER: tuple[tuple[UnaryMethod[Any, Any], str], ...] = (
    (service_rpc.SYNC_LITE_SUBSCRIPTION, "LITE topics are not supported yet"),
)


def open_unsupported(engine: Engine) -> None:
    for method, reason in _LATER:
        answer = method.response(status=status(definition_pb2.UNSUPPORTED, reason)).SerializeToString()
        engine.unary(method.path, partial(_refuse, answer, engine.meters.of(method.path)))


def _refuse(answer: bytes, meter: Meter, _request: bytes, call: UnaryCall) -> None:
    started = perf_counter()
    followed = meter.follow(call)
    call.reply(answer)
    meter.done(started, definition_pb2.UNSUPPORTED, followed)
