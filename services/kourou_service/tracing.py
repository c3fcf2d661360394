"""Spans of calls, sent to a collector by OpenTelemetry's own SDK. Imported only when traces are wanted.

The extra `otel` of kourou-server installs what it needs.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import structlog
from grpc import StatusCode
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, set_span_in_context
from opentelemetry.trace import StatusCode as SpanStatus
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kourou_service.client_headers import request_id
from kourou_service.engine import Call
from kourou_service.metrics.calls import Code, name_of
from kourou_service.metrics.exposition import Node

CLOSE_TIMEOUT_S = 0.25
"""Short: `kourou dev` ends three services one after the other."""
_PARENT = ("traceparent", "tracestate")
_logger = structlog.stdlib.get_logger(__name__)
_propagator = TraceContextTextMapPropagator()


class OtlpTracer:
    """One service's spans; their sending happens in a thread."""

    def __init__(self, endpoint: str, ratio: float, node: Node) -> None:
        """`ratio` (0 to 1) decides on calls that bring no decision of their own in the header traceparent."""
        resource = Resource.create(
            {
                "service.name": f"kourou-{node.type}",
                "service.namespace": node.cluster,
                "service.instance.id": node.id,
                "service.version": version("kourou-server"),
            }
        )
        self._exporter: Any = OTLPSpanExporter(endpoint)  # the types of its methods say too little
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)), resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("kourou")

    def start(self, call: Call) -> "CallSpan | None":
        service, _, method = call.method[1:].rpartition("/")
        attributes = {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": method,
            "messaging.system": "rocketmq",
            "messaging.request_id": request_id(call.metadata),
            "network.peer.address": call.peer,
        }
        client_id = call.metadata.get("x-mq-client-id")
        if isinstance(client_id, str):
            attributes["messaging.client_id"] = client_id
        name = f"{service}/{method}"
        span = self._tracer.start_span(name, _parent(call), SpanKind.SERVER, attributes=attributes)
        # What the call is passed on with: further spans lie below this one.
        _propagator.inject(call.metadata, set_span_in_context(span, Context()))
        return CallSpan(span) if span.is_recording() else None

    async def close(self) -> None:
        """Sends what is left, if the collector takes it at once; who does not answer holds up no stop."""
        if not await _done_in_time(self._provider.shutdown, CLOSE_TIMEOUT_S):
            _logger.warning("the newest traces are dropped: the collector did not take them in time")
            logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it would say so in many more lines
            await _done_in_time(self._exporter.shutdown, CLOSE_TIMEOUT_S)  # ends the sending that is under way


class CallSpan:
    def __init__(self, span: Span) -> None:
        self._span = span

    def about(self, topic: str, group: str) -> None:
        if topic:
            self._span.set_attribute("messaging.destination.name", topic)
        if group:
            self._span.set_attribute("messaging.consumer.group.name", group)

    def end(self, code: Code, reason: str, *, failed: bool) -> None:
        grpc_status = code if isinstance(code, StatusCode) else StatusCode.OK
        self._span.set_attribute("rpc.grpc.status_code", grpc_status.value[0])
        self._span.set_attribute("messaging.rocketmq.response_code", name_of(code))
        if failed:
            self._span.set_status(Status(SpanStatus.ERROR, reason or name_of(code)))
        self._span.end()


def _parent(call: Call) -> Context:
    """What the client says of the trace that its call belongs to."""
    carrier = {name: value for name in _PARENT if isinstance(value := call.metadata.get(name), str)}
    return _propagator.extract(carrier, Context())


async def _done_in_time(blocking: Callable[[], object], timeout_s: float) -> bool:
    """Runs it in a thread that nobody waits for at the end of the process, unlike those of the loop's executor."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        blocking()
        if not loop.is_closed():
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="kourou-traces-end", daemon=True).start()
    try:
        async with asyncio.timeout(timeout_s):
            await done.wait()
    except TimeoutError:
        return False
    return True
