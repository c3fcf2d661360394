"""What a NameServer shows of itself, by real HTTP, as brokers come, go, and are asked for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal

import pytest
from grpc import StatusCode

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.kourou.registry.v1 import registry_pb2, registry_rpc
from kourou.protocol.kourou.routing.v1 import routing_pb2, routing_rpc
from kourou.transport import BidiCall, GrpcTransport, RpcError
from kourou_namesrv.service import NameServer
from kourou_namesrv.settings import NamesrvSettings
from kourou_service.listener import HostPort, Listener
from kourou_service.metrics.server import serving_metrics
from tests.unit.namesrv.states import full_state, topic_state
from tests.unit.service.scraping import Shown, fetch, scrape, scrape_until

TIMEOUT_S = 10
HEADERS = [("x-mq-client-id", "a-client")]
Stream = BidiCall[registry_pb2.RegisterRequest, registry_pb2.RegisterResponse]


class World:
    """A NameServer, its metrics, and what brokers and clients do with it."""

    def __init__(self, namesrv: NameServer, address: HostPort) -> None:
        self.namesrv = namesrv
        self.address = address
        self.transport = GrpcTransport()

    async def register(self, state: registry_pb2.FullState) -> tuple[Stream, str]:
        """The stream, and what kind of answer it got."""
        stream = self.transport.channel(self.namesrv.broker_address).bidi(registry_rpc.REGISTER)
        await stream.write(registry_pb2.RegisterRequest(full_state=state))
        answer = await stream.read()
        assert answer is not None
        return stream, str(answer.WhichOneof("answer"))

    async def route(self, topic: str) -> None:
        channel = self.transport.channel(str(self.namesrv.listeners[0].bind))
        request = service_pb2.QueryRouteRequest(topic=v2.Resource(name=topic))
        await channel.unary(service_rpc.QUERY_ROUTE, request, timeout_s=TIMEOUT_S, metadata=HEADERS)

    async def shown(self, condition: Callable[[Shown], bool]) -> Shown:
        return await scrape_until(self.address, condition)


@asynccontextmanager
async def serving(engine: Literal["queue", "aio"], eviction_s: float) -> AsyncIterator[World]:
    settings = NamesrvSettings(
        listeners=(Listener.parse("local=127.0.0.1:0"),),
        broker_listener=HostPort("127.0.0.1", 0),
        metrics_listen=HostPort("127.0.0.1", 0),
        cluster="north",
        engine=engine,
        eviction_s=eviction_s,
        scan_interval_s=0.05,
        stop_grace_s=0.2,
    )
    namesrv = NameServer(settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(namesrv.stop)
        await namesrv.start()
        address = await stack.enter_async_context(serving_metrics([namesrv.metrics()], settings.metrics_listen, 100))
        assert address is not None
        world = World(namesrv, address)
        stack.push_async_callback(world.transport.close)
        yield world


@pytest.fixture(params=["queue", "aio"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with serving(request.param, 60) as world:
        yield world


async def test_it_is_not_ready_before_its_brokers_are_there(world: World) -> None:
    status, reason = await fetch(world.address, "/health")
    assert (status, reason) == (503, "it has just started and waits for brokers: a first one\n")
    with pytest.raises(RpcError) as refused:
        await world.route("orders")
    assert refused.value.code == StatusCode.UNAVAILABLE
    await world.register(full_state(known_brokers=("broker-b",)))
    assert (await fetch(world.address, "/health"))[1].endswith("waits for brokers: broker-b\n")
    page = await scrape(world.address)
    assert page.sum("kourou_namesrv_ready", cluster="north", node_type="nameserver") == 0
    assert page.sum("kourou_namesrv_route_pulls_total", result="not_ready") == 1
    await world.register(full_state("broker-b"))
    assert await fetch(world.address, "/health") == (200, "ok\n")
    assert (await scrape(world.address)).sum("kourou_namesrv_ready") == 1


async def test_brokers_and_what_they_hold(world: World) -> None:
    stream, answer = await world.register(full_state(topics={"orders": 4, "bills": 2}))
    assert answer == "accepted"
    await world.register(full_state("broker-b", topics={"orders": 8}, permission=v2.READ))
    page = await scrape(world.address)
    assert page.sum("kourou_namesrv_brokers", node_id=str(world.namesrv.listeners[0].bind)) == 2
    assert (page.sum("kourou_namesrv_topics"), page.sum("kourou_namesrv_queues")) == (2, 14)
    assert page.sum("kourou_namesrv_broker_permission", broker="broker-a") == 6
    assert page.sum("kourou_namesrv_broker_permission", broker="broker-b") == 4
    assert page.sum("kourou_namesrv_broker_connected", broker="broker-a") == 1
    assert page.sum("kourou_namesrv_registrations_total", outcome="accepted") == 2
    assert page.sum("rocketmq_processor_watermark", processor="stream") == 2
    change = registry_pb2.Change(
        changed_topics=[topic_state("orders", 5), topic_state("new", 1)], removed_topics=[v2.Resource(name="bills")]
    )
    await stream.write(registry_pb2.RegisterRequest(change=change))
    page = await world.shown(lambda page: page.sum("kourou_namesrv_queues") == 5 + 1 + 8)
    assert page.sum("kourou_namesrv_topics") == 2


async def test_how_brokers_come_and_go(world: World) -> None:
    stream, _ = await world.register(full_state())
    for _ in range(3):
        await stream.write(registry_pb2.RegisterRequest(heartbeat=registry_pb2.Heartbeat()))
    await world.shown(lambda page: page.sum("kourou_namesrv_heartbeats_total", broker="broker-a") == 3)
    _, answer = await world.register(full_state(identity=b"i" * 16))
    assert answer == "refused"
    stream.cancel()
    page = await world.shown(lambda page: page.sum("kourou_namesrv_broken_streams_total") == 1)
    assert page.sum("kourou_namesrv_registrations_total", outcome="refused") == 1
    assert page.sum("kourou_namesrv_broker_connected", broker="broker-a") == 0
    stream, _ = await world.register(full_state())
    await stream.write(registry_pb2.RegisterRequest(goodbye=registry_pb2.Goodbye()))
    page = await world.shown(lambda page: page.sum("kourou_namesrv_goodbyes_total") == 1)
    assert page.sum("kourou_namesrv_brokers") == 0
    assert not page.labels("kourou_namesrv_broker_connected")


async def test_a_silent_broker_is_seen_and_removed(world: World) -> None:
    await world.register(full_state())
    page = await world.shown(lambda page: page.sum("kourou_namesrv_broker_silent_seconds", broker="broker-a") > 0.05)
    assert page.sum("kourou_namesrv_evictions_total") == 0
    async with serving("queue", 0.1) as quick:
        await quick.register(full_state())
        page = await quick.shown(lambda page: page.sum("kourou_namesrv_evictions_total") == 1)
        assert page.sum("kourou_namesrv_brokers") == 0


async def test_routes_that_are_asked_for_and_waited_for(world: World) -> None:
    await world.register(full_state(topics={"orders": 4}))
    for topic in ("orders", "orders", "missing"):
        await world.route(topic)
    request = routing_pb2.WatchRouteRequest(topic=v2.Resource(name="orders"))
    channel = world.transport.channel(str(world.namesrv.listeners[0].bind))
    known = await channel.unary(routing_rpc.WATCH_ROUTE, request, timeout_s=TIMEOUT_S, metadata=HEADERS)
    request.known_version = known.message.version
    request.max_wait.seconds = 30
    watching = asyncio.create_task(
        channel.unary(routing_rpc.WATCH_ROUTE, request, timeout_s=TIMEOUT_S, metadata=HEADERS)
    )
    page = await world.shown(lambda page: page.sum("kourou_namesrv_route_watchers") == 1)
    assert page.sum("kourou_namesrv_route_pulls_total", result="ok") == 3
    assert page.sum("kourou_namesrv_route_pulls_total", result="not_found") == 1
    latency = "rocketmq_rpc_latency_milliseconds_count"
    assert page.sum(latency, request_code="QueryRoute", response_code="OK", result="success") == 2
    assert page.sum(latency, request_code="QueryRoute", response_code="TOPIC_NOT_FOUND", result="failed") == 1
    assert page.sum(latency, request_code="WatchRoute", is_long_polling="true") == 1
    watching.cancel()
    await asyncio.wait([watching])
    await world.shown(lambda page: page.sum("kourou_namesrv_route_watchers") == 0)
