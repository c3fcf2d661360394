"""The admin service on both engines, with real calls from outside and a cluster in memory behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from kourou.errors import InvalidRequest, ServerFailure
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.admin.v1 import admin_pb2, admin_rpc
from kourou.transport import GrpcTransport, Transport
from kourou.wire import Wire
from kourou_admin.copies import TopicCopies
from kourou_admin.service import Admin
from kourou_admin.settings import AdminSettings
from kourou_service.settings import SettingsError
from tests.unit.admin.fake_cluster import FakeClock, FakeNetwork

FLIGHTS = v2.Resource(name="flights")


class World:
    def __init__(self, admin: Admin, network: FakeNetwork, wire: Wire) -> None:
        self.admin, self.network, self.wire = admin, network, wire
        self.address = admin.addresses[0]

    async def call(self, method: Any, request: Any) -> Any:
        return (await self.wire.call(self.address, method, request)).message


@pytest.fixture(params=["queue", "aio"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    network = FakeNetwork("broker-a", "broker-b")
    values = {"listen": "127.0.0.1:0", "engine": request.param, "level_interval_s": 0.05, "stop_grace_s": 0.5}
    settings = AdminSettings.model_validate(values)
    admin = Admin(settings, transport=cast("Transport", network), clock=FakeClock())
    await admin.start()
    transport = GrpcTransport()
    yield World(admin, network, Wire(transport, "test"))
    await transport.close()
    await admin.stop()


async def test_a_topic_by_a_real_call(world: World) -> None:
    created = await world.call(admin_rpc.CREATE_TOPIC, admin_pb2.CreateTopicRequest(name=FLIGHTS))
    assert created.topic.queues == 8
    listed = await world.call(admin_rpc.LIST_TOPICS, admin_pb2.ListTopicsRequest())
    assert listed.topics == [created.topic]
    with pytest.raises(InvalidRequest, match="exists on broker-a, broker-b already"):
        await world.call(admin_rpc.CREATE_TOPIC, admin_pb2.CreateTopicRequest(name=FLIGHTS))


async def test_no_error_ends_the_levelling(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = asyncio.Semaphore(0)

    async def fail(_: object) -> Any:
        rounds.release()
        raise ZeroDivisionError

    monkeypatch.setattr(TopicCopies, "level", fail)
    async with asyncio.timeout(5):
        await rounds.acquire()
        await rounds.acquire()


async def test_a_fault_is_answered_without_a_traceback(world: World) -> None:
    def fault(_: object) -> Any:
        raise ZeroDivisionError("a secret")

    for broker in world.network.brokers.values():
        broker.answers = dict.fromkeys(broker.answers, fault)
    with pytest.raises(ServerFailure) as error:
        await world.call(admin_rpc.LIST_TOPICS, admin_pb2.ListTopicsRequest())
    assert "secret" not in str(error.value)


async def test_a_second_service_on_the_port_is_refused(world: World) -> None:
    second = Admin(AdminSettings.model_validate({"listen": world.address}))
    with pytest.raises(OSError, match=world.address.rpartition(":")[2]):
        await second.start()
    await second.stop()


def test_settings() -> None:
    settings = AdminSettings.load(["--namesrv", "a:1,b:2"], {"KOUROU_ADMIN_LISTEN": "0.0.0.0:9080"})
    assert settings.namesrv == ("a:1", "b:2")
    assert str(settings.listen) == "0.0.0.0:9080"
    for args, environ, name in (
        (["--listen", "nonsense"], {}, "listen"),
        (["--namesrv", "nonsense"], {}, "namesrv"),
        (["--namesrv", ""], {}, "namesrv"),
        ([], {"KOUROU_ADMIN_NAMSRV": "a:1"}, "KOUROU_ADMIN_NAMSRV"),
    ):
        with pytest.raises(SettingsError, match=name):
            AdminSettings.load(args, environ)
