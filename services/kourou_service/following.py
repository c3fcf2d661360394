"""Calls that are followed one by one: a line of the log for each at level debug, a span for those that are traced.

Ordinarily neither is wanted, and a call costs the look at an attribute that is None.
"""

from typing import Any, Protocol

import structlog
from google.protobuf.message import Message

from kourou_service.engine import Call, Engine
from kourou_service.logs import identity
from kourou_service.metrics.calls import Code, name_of
from kourou_service.metrics.exposition import Node
from kourou_service.process import UserError
from kourou_service.settings import ServiceSettings

_logger = structlog.stdlib.get_logger("kourou_service.calls")


class Span(Protocol):
    """Of a trace, for one call."""

    def about(self, topic: str, group: str) -> None: ...
    def end(self, code: Code, reason: str, *, failed: bool) -> None: ...


class Tracer(Protocol):
    def start(self, call: Call) -> Span | None:
        """None for a call that is not to be traced."""
        ...

    async def close(self) -> None:
        """Sends what is left, for a short time."""
        ...


class FollowedCall:
    def __init__(self, call: Call, span: Span | None, *, logged: bool) -> None:
        # Taken now: once the call is answered, its peer is not known any more.
        self._told = identity(call) if logged else None
        self._span = span
        self._reason = ""

    def about(self, request: Message) -> None:
        """What the request is about, if it names a topic or a group."""
        topic, group = _topic(request), _named(request, "group")
        if self._span is not None:
            self._span.about(topic, group)
        if self._told is not None:
            self._told |= {name: value for name, value in (("topic", topic), ("group", group)) if value}

    def refused(self, reason: str) -> None:
        self._reason = reason
        if self._told is not None:
            self._told["reason"] = reason

    def ended(self, code: Code, latency_ms: float, *, failed: bool) -> None:
        if self._told is not None:
            _logger.debug("call", code=name_of(code), duration_ms=round(latency_ms, 3), **self._told)
        if self._span is not None:
            self._span.end(code, self._reason, failed=failed)


class Following:
    """Of one service. Raises UserError when traces are wanted and cannot be had."""

    def __init__(self, settings: ServiceSettings, node: Node) -> None:
        self._logs = settings.log_level == "debug"
        self._tracer = _tracer(settings, node) if settings.otlp_endpoint else None

    def install(self, *engines: Engine) -> None:
        """From now on calls are followed, if that is wanted."""
        if self._logs or self._tracer is not None:
            for engine in engines:
                engine.meters.follower = self

    def follow(self, call: Call) -> FollowedCall | None:
        span = self._tracer.start(call) if self._tracer is not None else None
        return FollowedCall(call, span, logged=self._logs) if span is not None or self._logs else None

    async def close(self) -> None:
        if self._tracer is not None:
            await self._tracer.close()


def _tracer(settings: ServiceSettings, node: Node) -> Tracer:
    try:
        from kourou_service.tracing import OtlpTracer
    except ImportError as missing:
        raise UserError(
            f"otlp_endpoint is set, but {missing.name} is not installed: pip install 'kourou-server[otel]'"
        ) from None
    return OtlpTracer(settings.otlp_endpoint, settings.trace_ratio, node)


def _topic(request: Message) -> str:
    for holder in _parts(request):
        if topic := _named(holder, "topic"):
            return topic
    return ""


def _parts(request: Message) -> list[Message]:
    """The request, and where else requests of the API name their topic."""
    typed: Any = request
    fields = request.DESCRIPTOR.fields_by_name
    if "message_queue" in fields:
        return [request, typed.message_queue]
    return [request, *typed.messages[:1]] if "messages" in fields else [request]


def _named(message: Message, field: str) -> str:
    """The name in a field that is a Resource; "" without one."""
    described = message.DESCRIPTOR.fields_by_name.get(field)
    if described is None or described.message_type is None or described.message_type.name != "Resource":
        return ""
    resource = getattr(message, field)
    namespace = resource.resource_namespace
    return f"{namespace}%{resource.name}" if namespace else str(resource.name)
