"""Spans of calls, as a collector gets them; collectors that are down or silent."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou.protocol.method import UnaryMethod
from kourou.transport import GrpcTransport, RpcError
from kourou_broker.service import Broker
from kourou_broker.settings import BrokerSettings
from kourou_namesrv.service import NameServer
from kourou_namesrv.settings import NamesrvSettings
from kourou_service.listener import HostPort, Listener
from kourou_service.process import UserError
from kourou_service.settings import SettingsError

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OpenTelemetry collector that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.news = threading.Condition()
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(self, request: Any, context: object) -> Any:  # noqa: N802 - its name in the protocol
        with self.news:
            for sent in request.resource_spans:
                self.resources.append(attributes(sent.resource))
                self.spans += [span for scope in sent.scope_spans for span in scope.spans]
            self.news.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def stop(self) -> None:
        self._server.stop(0).wait()


def attributes(described: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in described.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


def settings(**more: object) -> NamesrvSettings:
    return NamesrvSettings.model_validate(
        {
            "listeners": (Listener.parse("local=127.0.0.1:0"),),
            "broker_listener": HostPort("127.0.0.1", 0),
            "readiness_patience_s": 0,
            **more,
        }
    )


@contextlib.asynccontextmanager
async def running(settings: NamesrvSettings) -> AsyncIterator[NameServer]:
    namesrv = NameServer(settings)
    try:
        await namesrv.start()
        yield namesrv
    finally:
        await namesrv.stop()


async def query(namesrv: NameServer, topic: str, traceparent: str = "") -> int:
    request = service_pb2.QueryRouteRequest(topic=v2.Resource(name=topic))
    return await call(namesrv, service_rpc.QUERY_ROUTE, request, traceparent)


async def call(service: NameServer | Broker, method: UnaryMethod[Any, Any], request: Any, traceparent: str = "") -> int:
    """The code of the answer."""
    headers = [("x-mq-client-id", "a-client"), *([("traceparent", traceparent)] if traceparent else [])]
    transport = GrpcTransport()
    try:
        channel = transport.channel(str(service.listeners[0].bind))
        reply = await channel.unary(method, request, timeout_s=10, metadata=headers)
        return reply.message.status.code
    finally:
        await transport.close()


def new_broker(folder: Path, namesrv: str, collector: Collector) -> Broker:
    return Broker(
        BrokerSettings.model_validate(
            {
                "data": folder,
                "listeners": (Listener.parse("local=127.0.0.1:0"),),
                "namesrv": (namesrv,),
                "segment_bytes": 1 << 20,
                "otlp_endpoint": collector.endpoint,
            }
        )
    )


async def put_topic(broker: Broker, name: str) -> int:
    topic = record_pb2.Topic(name=v2.Resource(name=name), type=v2.NORMAL, queues=1, permission=v2.READ_WRITE, version=1)
    return await call(broker, broker_rpc.PUT_TOPIC, broker_pb2.PutTopicRequest(topic=topic))


@pytest.mark.parametrize("engine", ["queue", "aio"])
async def test_a_call_is_a_span_below_its_callers(collector: Collector, engine: str) -> None:
    async with running(settings(otlp_endpoint=collector.endpoint, cluster="north", engine=engine)) as namesrv:
        assert await query(namesrv, "missing", f"00-{TRACE}-{PARENT}-01") == v2.TOPIC_NOT_FOUND
        node = str(namesrv.listeners[0].bind)
    [span] = collector.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.name == "apache.rocketmq.v2.MessagingService/QueryRoute"
    assert span.kind == span.SPAN_KIND_SERVER
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 10e9
    told = attributes(span)
    assert told.pop("messaging.request_id")
    assert told.pop("network.peer.address").startswith("ipv4:127.0.0.1:")
    assert told == {
        "rpc.system": "grpc",
        "rpc.service": "apache.rocketmq.v2.MessagingService",
        "rpc.method": "QueryRoute",
        "rpc.grpc.status_code": 0,
        "messaging.system": "rocketmq",
        "messaging.client_id": "a-client",
        "messaging.destination.name": "missing",
        "messaging.rocketmq.response_code": "TOPIC_NOT_FOUND",
    }
    assert span.status.code == span.status.STATUS_CODE_ERROR
    assert span.status.message == "TOPIC_NOT_FOUND"
    [resource] = collector.resources
    assert (resource["service.name"], resource["service.namespace"]) == ("kourou-nameserver", "north")
    assert resource["service.instance.id"] == node


async def test_who_decides_what_is_traced(collector: Collector) -> None:
    async with running(settings(otlp_endpoint=collector.endpoint, trace_ratio=0)) as namesrv:
        await query(namesrv, "alone")
        await query(namesrv, "unwanted", f"00-{TRACE}-{PARENT}-00")
        await query(namesrv, "wanted", f"00-{TRACE}-{PARENT}-01")
        await query(namesrv, "garbled", "00-nonsense")
    assert [attributes(span)["messaging.destination.name"] for span in collector.spans] == ["wanted"]
    collector.spans.clear()
    async with running(settings(otlp_endpoint=collector.endpoint)) as namesrv:
        await query(namesrv, "alone")
        await query(namesrv, "unwanted", f"00-{TRACE}-{PARENT}-00")
    assert [attributes(span)["messaging.destination.name"] for span in collector.spans] == ["alone"]


async def test_spans_are_sent_while_it_runs(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    async with running(settings(otlp_endpoint=collector.endpoint)) as namesrv:
        await query(namesrv, "orders")
        with collector.news:
            assert collector.news.wait_for(lambda: collector.spans, 10)


async def test_a_call_that_ends_with_an_error_of_grpc(collector: Collector) -> None:
    async with running(settings(otlp_endpoint=collector.endpoint, readiness_patience_s=60)) as namesrv:
        with pytest.raises(RpcError):
            await query(namesrv, "orders")
    [span] = collector.spans
    assert attributes(span)["rpc.grpc.status_code"] == grpc.StatusCode.UNAVAILABLE.value[0]
    assert span.status.message == "UNAVAILABLE"


async def test_the_fast_calls_of_a_broker(collector: Collector, tmp_path: Path) -> None:
    """Sends and acknowledgements have doors of their own, without a task."""
    broker = new_broker(tmp_path, "127.0.0.1:1", collector)
    try:
        await broker.start()
        assert await put_topic(broker, "orders") == v2.OK
        for name in ("orders", "missing"):
            message = v2.Message(topic=v2.Resource(name=name), body=b"x")
            message.system_properties.message_id = "1"
            await call(broker, service_rpc.SEND_MESSAGE, service_pb2.SendMessageRequest(messages=[message]))
        ack = service_pb2.AckMessageRequest(topic=v2.Resource(name="orders"), group=v2.Resource(name="readers"))
        await call(broker, service_rpc.ACK_MESSAGE, ack)
    finally:
        await broker.stop()
    told = [(span.name.rpartition("/")[2], attributes(span), span.status.message) for span in collector.spans]
    named = [
        (method, said.get("messaging.destination.name"), said["messaging.rocketmq.response_code"])
        for method, said, _ in told
    ]
    assert named == [
        ("PutTopic", None, "OK"),
        ("SendMessage", "orders", "OK"),
        ("SendMessage", "missing", "TOPIC_NOT_FOUND"),
        ("AckMessage", "orders", "CONSUMER_GROUP_NOT_FOUND"),
    ]
    assert "no topic missing" in told[2][2]
    assert told[3][1]["messaging.consumer.group.name"] == "readers"


async def test_a_call_that_is_passed_on_is_one_trace_and_one_request(collector: Collector, tmp_path: Path) -> None:
    """The client gives its request no id, so the NameServer does."""
    async with running(settings(otlp_endpoint=collector.endpoint)) as namesrv:
        broker = new_broker(tmp_path, namesrv.broker_address, collector)
        try:
            await broker.start()
            assert await put_topic(broker, "orders") == v2.OK
            async with asyncio.timeout(10):
                while await query(namesrv, "orders") != v2.OK:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            request = service_pb2.QueryAssignmentRequest(
                topic=v2.Resource(name="orders"), group=v2.Resource(name="readers")
            )
            await call(namesrv, service_rpc.QUERY_ASSIGNMENT, request, f"00-{TRACE}-{PARENT}-01")
        finally:
            await broker.stop()
    spans = [span for span in collector.spans if span.name.endswith("QueryAssignment")]
    assert [span.trace_id.hex() for span in spans] == [TRACE] * 2
    [above] = [span for span in spans if span.parent_span_id.hex() == PARENT]
    [below] = [span for span in spans if span.parent_span_id == above.span_id]
    assert attributes(below)["messaging.request_id"] == attributes(above)["messaging.request_id"]
    assert attributes(below)["messaging.client_id"] == "a-client"


@pytest.fixture(params=["down", "silent"])
def unreachable(request: pytest.FixtureRequest) -> Iterator[str]:
    """A collector that refuses connections, or takes them and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        where = f"http://127.0.0.1:{listening.getsockname()[1]}"
        if request.param == "down":
            listening.close()
        yield where


PROGRAM = """
import asyncio, sys
from kourou_service.logs import configure_logging
from kourou_service.process import run_process
from tests.unit.service.test_tracing import query, running, settings

async def serve(stop):
    configure_logging("info", "json")
    async with running(settings(otlp_endpoint=sys.argv[1])) as namesrv:
        for _ in range(50):
            await query(namesrv, "orders")
        print("stops", flush=True)

sys.exit(run_process("traced", serve))
"""


def test_a_collector_that_is_away_holds_up_no_exit(unreachable: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), unreachable]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stops\n"
        begin_s = time.monotonic()
        _, err = process.communicate(timeout=20)
        assert time.monotonic() - begin_s < 3  # 0.5 s for a stop of its own, and a busy machine
    assert process.returncode == 0, err
    assert "Traceback" not in err


async def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "kourou_service.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(UserError, match=r"pip install 'kourou-server\[otel\]'"):
        async with running(settings(otlp_endpoint="http://127.0.0.1:4317")):
            pass


def test_opentelemetry_is_not_imported_unless_it_is_wanted() -> None:
    program = "import sys, kourou_dev.__main__; sys.exit('opentelemetry' in str(sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 0


@pytest.mark.parametrize("endpoint", ["collector:4317", "http://collector", "ftp://collector:1", "http://:4317"])
def test_what_is_no_endpoint(endpoint: str) -> None:
    with pytest.raises(SettingsError, match="otlp_endpoint"):
        NamesrvSettings.load(["--otlp-endpoint", endpoint], {})
