"""What doors tell of their calls: how long each took and how it ended, whose it was, and what went wrong."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from grpc import StatusCode
from structlog.testing import capture_logs
from structlog.typing import EventDict

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.method import UnaryMethod
from kourou.transport import GrpcTransport, RpcError
from kourou_service.client_headers import client_headers
from kourou_service.door import Ended, serve_stream, serve_unary, status
from kourou_service.engine import AbortCall, Call, Engine, StreamCall, create_engine
from kourou_service.following import Following
from kourou_service.logs import current_call, identity
from kourou_service.metrics.calls import LATENCY_BOUNDS_MS, CallMeters
from kourou_service.metrics.exposition import Node
from kourou_service.metrics.histogram import Histogram
from kourou_service.refusal import Refused
from kourou_service.settings import ServiceSettings

NODE = Node("kourou", "broker", "broker-a")
TIMEOUT_S = 10
HEADERS = [("x-mq-client-id", "a-client"), ("x-mq-request-id", "request-1")]
OK = status(v2.OK, "OK")
_logger = structlog.stdlib.get_logger("handlers")


class Service:
    """QueryRoute and ReceiveMessage, which do what the topic's name says."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        serve_unary(engine, service_rpc.QUERY_ROUTE, self._query)
        serve_stream(engine, service_rpc.RECEIVE_MESSAGE, self._receive, long_polling=True)
        self.address = engine.listen("127.0.0.1:0")
        self.transport = GrpcTransport()
        self.waiting = asyncio.Event()

    async def query(self, topic: str, timeout_s: float = TIMEOUT_S) -> int:
        """The code of the answer."""
        request = service_pb2.QueryRouteRequest(topic=v2.Resource(name=topic, resource_namespace="ns"))
        return await self._call(service_rpc.QUERY_ROUTE, request, timeout_s)

    async def garbage(self) -> None:
        method = UnaryMethod(service_rpc.QUERY_ROUTE.path, v2.Resource, service_pb2.QueryRouteResponse)
        await self._call(method, v2.Resource(name="\x00"), TIMEOUT_S)

    async def receive(self, topic: str) -> list[int]:
        """The codes of all responses."""
        queue = v2.MessageQueue(topic=v2.Resource(name=topic))
        request = service_pb2.ReceiveMessageRequest(group=v2.Resource(name="readers"), message_queue=queue)
        call = self.transport.channel(self.address).server_stream(
            service_rpc.RECEIVE_MESSAGE, request, timeout_s=TIMEOUT_S, metadata=HEADERS
        )
        return [response.status.code async for response in call]

    def latency(self, method: str, code: str) -> Histogram:
        return dict(self._rows())[("grpc", method, code)]

    def labels(self) -> list[tuple[str, ...]]:
        return [labels for labels, _ in self.engine.meters.family().rows]

    def _rows(self) -> Any:
        return ((labels[:3], row) for labels, row in self.engine.meters.family().rows)

    async def _call(self, method: Any, request: Any, timeout_s: float) -> int:
        channel = self.transport.channel(self.address)
        reply = await channel.unary(method, request, timeout_s=timeout_s, metadata=HEADERS)
        return reply.message.status.code

    async def _query(self, request: service_pb2.QueryRouteRequest, call: Call) -> service_pb2.QueryRouteResponse:
        await self._act(request.topic.name)
        return service_pb2.QueryRouteResponse(status=OK)

    async def _receive(self, request: service_pb2.ReceiveMessageRequest, call: StreamCall) -> Ended | None:
        await self._act(request.message_queue.topic.name)
        if request.message_queue.topic.name == "empty":
            nothing = service_pb2.ReceiveMessageResponse(status=status(v2.MESSAGE_NOT_FOUND, "nothing"))
            await call.send(nothing.SerializeToString())
            return Ended(v2.MESSAGE_NOT_FOUND, waited=True)
        await call.send(service_pb2.ReceiveMessageResponse(status=OK).SerializeToString())
        return None

    async def _act(self, topic: str) -> None:
        match topic:
            case "slow":
                await asyncio.sleep(0.03)
            case "never":
                self.waiting.set()
                await asyncio.sleep(60)
            case "missing":
                raise Refused(v2.TOPIC_NOT_FOUND, "no topic missing")
            case "starting":
                raise AbortCall(StatusCode.UNAVAILABLE, "not yet")
            case "fault":
                raise ZeroDivisionError
            case "chatty":
                _logger.info("a handler says something")
            case _:
                pass


@pytest.fixture(params=["queue", "aio"])
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    service = Service(create_engine(request.param))
    await service.engine.start()
    yield service
    await service.transport.close()
    await service.engine.stop(0)


async def until_counted(service: Service, method: str, code: str) -> Histogram:
    """A call that was cancelled ends for the server a moment after its client left."""
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(KeyError):
                return service.latency(method, code)
            await asyncio.sleep(0.005)


async def test_each_call_is_counted_by_method_and_code(service: Service) -> None:
    for topic in ("a", "b", "slow"):
        assert await service.query(topic) == v2.OK
    assert await service.query("missing") == v2.TOPIC_NOT_FOUND
    assert await service.query("fault") == v2.INTERNAL_SERVER_ERROR
    with pytest.raises(RpcError):
        await service.query("starting")
    assert await service.receive("a") == [v2.OK]
    assert await service.receive("empty") == [v2.MESSAGE_NOT_FOUND]
    assert await service.receive("missing") == [v2.TOPIC_NOT_FOUND]
    with pytest.raises(RpcError):
        await service.receive("starting")
    assert sorted(service.labels()) == [
        ("grpc", "QueryRoute", "INTERNAL_SERVER_ERROR", "false", "failed"),
        ("grpc", "QueryRoute", "OK", "false", "success"),
        ("grpc", "QueryRoute", "TOPIC_NOT_FOUND", "false", "failed"),
        ("grpc", "QueryRoute", "UNAVAILABLE", "false", "failed"),
        ("grpc", "ReceiveMessage", "MESSAGE_NOT_FOUND", "true", "success"),
        ("grpc", "ReceiveMessage", "OK", "false", "success"),
        ("grpc", "ReceiveMessage", "TOPIC_NOT_FOUND", "false", "failed"),
        ("grpc", "ReceiveMessage", "UNAVAILABLE", "false", "failed"),
    ]
    took = service.latency("QueryRoute", "OK")
    assert took.count == 3
    assert 30 <= took.sum < 1000
    assert service.engine.meters.of(service_rpc.QUERY_ROUTE.path).calls(v2.OK) == 3
    assert service.engine.meters.of(service_rpc.QUERY_ROUTE.path).calls(v2.FORBIDDEN) == 0


async def test_a_call_whose_client_leaves_is_counted_as_cancelled(service: Service) -> None:
    with pytest.raises(RpcError):
        await service.query("never", timeout_s=0.1)
    assert (await until_counted(service, "QueryRoute", "CANCELLED")).count == 1
    service.waiting.clear()
    receive = asyncio.create_task(service.receive("never"))
    await asyncio.wait_for(service.waiting.wait(), 5)
    receive.cancel()
    assert (await until_counted(service, "ReceiveMessage", "CANCELLED")).count == 1
    assert ("grpc", "ReceiveMessage", "CANCELLED", "true", "failed") in service.labels()


async def test_what_is_under_way(service: Service) -> None:
    query = asyncio.create_task(service.query("never"))
    await asyncio.wait_for(service.waiting.wait(), 5)
    assert service.engine.under_way == (1, 0)
    service.waiting.clear()
    receive = asyncio.create_task(service.receive("never"))
    await asyncio.wait_for(service.waiting.wait(), 5)
    assert service.engine.under_way == (1, 1)
    for call in (query, receive):
        call.cancel()
    await asyncio.wait([query, receive])
    async with asyncio.timeout(5):
        while service.engine.under_way != (0, 0):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def test_codes_of_one_name_share_a_series() -> None:
    meters = CallMeters()
    for code in (v2.NOT_FOUND, StatusCode.NOT_FOUND):
        meters.of("/s/M").done(time.perf_counter(), code)
    [(labels, took)] = meters.family().rows
    assert labels == ("grpc", "M", "NOT_FOUND", "false", "failed")
    assert isinstance(took, Histogram)
    assert took.count == 2
    assert took.bounds == LATENCY_BOUNDS_MS


def test_a_call_costs_little() -> None:
    """The bound is ten times what it takes, since the machine may be busy; the best of several runs counts."""
    meter, calls = CallMeters().of("/s/M"), 20_000
    call: Any = None
    best_s = 1.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(calls):
            meter.done(started, v2.OK, meter.follow(call))
        best_s = min(best_s, (time.perf_counter() - started) / calls)
    assert best_s < 5e-6


async def said(service: Service, topic: str, level: str = "debug") -> list[EventDict]:
    """What is logged of a call."""
    settings = ServiceSettings.model_validate({"log_level": level})
    following = Following(settings, NODE)
    following.install(service.engine)
    with capture_logs() as lines, contextlib.suppress(RpcError):
        await service.query(topic)
    await following.close()
    return lines


async def test_at_level_debug_each_call_is_a_line(service: Service) -> None:
    [line] = await said(service, "orders")
    assert line.pop("duration_ms") > 0
    assert line.pop("peer").startswith("ipv4:127.0.0.1:")
    assert line == {
        "event": "call",
        "log_level": "debug",
        "method": service_rpc.QUERY_ROUTE.path,
        "code": "OK",
        "topic": "ns%orders",
        "client_id": "a-client",
        "request_id": "request-1",
    }
    [line] = await said(service, "missing")
    assert (line["code"], line["reason"]) == ("TOPIC_NOT_FOUND", "no topic missing")
    [line] = await said(service, "starting")
    assert line["code"] == "UNAVAILABLE"
    with capture_logs() as lines:
        assert await service.receive("a") == [v2.OK]
    assert [(line["event"], line["topic"], line["group"]) for line in lines] == [("call", "a", "readers")]


async def test_at_other_levels_only_failures_are_told(service: Service) -> None:
    assert await said(service, "orders", "info") == []
    assert await said(service, "missing", "info") == []
    [line] = await said(service, "fault", "info")
    assert (line["event"], line["log_level"]) == ("a request failed", "error")
    assert isinstance(line["exc_info"], ZeroDivisionError)
    assert (line["method"], line["client_id"]) == (service_rpc.QUERY_ROUTE.path, "a-client")


async def test_what_a_handler_logs_says_whose_call_it_is(service: Service) -> None:
    seen: list[dict[str, str]] = []

    def note(_logger: object, _method: str, event: EventDict) -> EventDict:
        call = current_call.get()
        seen.append(identity(call) if call is not None else {})
        return event

    with capture_logs(processors=[note]):
        await service.query("chatty")
        await service.receive("chatty")
        _logger.info("nobody's")
    assert [(told.get("client_id"), told.get("request_id")) for told in seen] == [("a-client", "request-1")] * 2 + [
        (None, None)
    ]
    assert [told.get("method") for told in seen[:2]] == [service_rpc.QUERY_ROUTE.path, service_rpc.RECEIVE_MESSAGE.path]


def test_what_a_call_does_not_say_is_left_out() -> None:
    metadata = {"x-mq-client-id": "c" * 1000, "x-mq-request-id": "r" * 1000}
    call: Any = SimpleNamespace(method="/s/M", peer="", metadata=metadata)
    assert identity(call) == {"method": "/s/M", "client_id": "c" * 255, "request_id": "r" * 255}


@pytest.mark.parametrize("headers", [{}, {"x-mq-request-id": ""}, {"x-mq-request-id": b"bytes"}])
def test_a_request_without_an_id_gets_one_and_keeps_it(headers: dict[str, str | bytes]) -> None:
    first: Any = SimpleNamespace(method="/s/M", peer="", metadata={**headers})
    second: Any = SimpleNamespace(method="/s/M", peer="", metadata={**headers})
    made = identity(first)["request_id"]
    assert made == identity(first)["request_id"] != identity(second)["request_id"]
    assert client_headers(first.metadata) == [("x-mq-request-id", made)]
