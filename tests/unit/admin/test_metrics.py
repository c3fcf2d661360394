"""What the admin service shows of itself, by real HTTP."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.admin.v1 import admin_pb2, admin_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou.transport import GrpcTransport, Transport
from kourou.wire import Wire
from kourou_admin import levelling
from kourou_admin.service import Admin
from kourou_admin.settings import AdminSettings
from kourou_service.listener import HostPort
from kourou_service.metrics.server import serving_metrics
from tests.unit.admin.fake_cluster import FakeClock, FakeNetwork
from tests.unit.service.scraping import Shown, fetch, scrape, scrape_until


class World:
    def __init__(self, admin: Admin, network: FakeNetwork, address: HostPort) -> None:
        self.admin, self.network, self.address = admin, network, address

    async def shown(self, condition: Callable[[Shown], bool]) -> Shown:
        return await scrape_until(self.address, condition)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(levelling, "_LOOK_INTERVAL_S", 0.02)
    network = FakeNetwork("broker-a", "broker-b")
    values = {"listen": "127.0.0.1:0", "level_interval_s": 0.02, "stop_grace_s": 0.5, "cluster": "north"}
    admin = Admin(AdminSettings.model_validate(values), transport=cast("Transport", network), clock=FakeClock())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(admin.stop)
        await admin.start()
        address = await stack.enter_async_context(serving_metrics([admin.metrics()], HostPort("127.0.0.1", 0), 100))
        assert address is not None
        yield World(admin, network, address)


async def test_calls_and_health(world: World) -> None:
    transport = GrpcTransport()
    wire = Wire(transport, "test")
    for _ in range(2):
        await wire.call(world.admin.addresses[0], admin_rpc.LIST_TOPICS, admin_pb2.ListTopicsRequest())
    await transport.close()
    page = await scrape(world.address)
    of = {"cluster": "north", "node_type": "admin", "node_id": world.admin.addresses[0]}
    latency = "rocketmq_rpc_latency_milliseconds_count"
    assert page.sum(latency, request_code="ListTopics", response_code="OK", **of) == 2
    assert page.sum("kourou_build_info", **of) == 1
    assert await fetch(world.address, "/health") == (200, "ok\n")


async def test_how_level_the_brokers_are(world: World) -> None:
    await world.shown(lambda page: page.sum("kourou_admin_brokers_reachable") == 2)
    broker = world.network.brokers["broker-b"]

    def full(_: Any) -> broker_pb2.PutGroupResponse:
        return broker_pb2.PutGroupResponse(status=v2.Status(code=v2.TOO_MANY_REQUESTS))

    works = broker.answers[broker_rpc.PUT_GROUP.path]
    broker.answers[broker_rpc.PUT_GROUP.path] = full
    group = record_pb2.Group(name=v2.Resource(name="readers"), version=1)
    world.network.brokers["broker-a"].groups["readers"] = group
    page = await world.shown(lambda page: page.sum("kourou_admin_differing_definitions") == 1)
    assert page.sum("kourou_admin_level_failures_total") >= 1
    assert page.sum("kourou_admin_levelled_definitions_total") == 0
    broker.answers[broker_rpc.PUT_GROUP.path] = works
    page = await world.shown(lambda page: page.sum("kourou_admin_differing_definitions") == 0)
    assert page.sum("kourou_admin_levelled_definitions_total") == 1
    broker.down = True
    await world.shown(lambda page: page.sum("kourou_admin_brokers_reachable") == 1)
    world.network.brokers.clear()
    await world.shown(lambda page: page.sum("kourou_admin_brokers_reachable") == 0)
