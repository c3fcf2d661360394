"""Registration and routes over the real network, on both engines."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from grpc import StatusCode

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.resolver import Resolver
from kourou.transport import Channel, GrpcTransport, RpcError
from kourou_broker.registration import Registration
from kourou_broker.report import BrokerReport
from kourou_namesrv.service import NameServer
from kourou_namesrv.settings import NamesrvSettings
from kourou_service.listener import HostPort, Listener
from tests.unit.namesrv.states import topic_state

TIMEOUT_S = 10
HEADERS = [("x-mq-client-id", "a-client")]


@pytest.fixture(params=["queue", "aio"])
async def namesrv(request: pytest.FixtureRequest) -> AsyncIterator[NameServer]:
    settings = NamesrvSettings(
        listeners=(Listener.parse("local=127.0.0.1:0"),),
        broker_listener=HostPort("127.0.0.1", 0),
        engine=request.param,
        broken_stream_grace_s=0.2,
        stop_grace_s=0.2,
    )
    namesrv = NameServer(settings)
    await namesrv.start()
    yield namesrv
    await namesrv.stop()


class RegisteredBroker:
    def __init__(self, namesrv: NameServer, identity: bytes) -> None:
        self.transport = GrpcTransport()
        self.report = BrokerReport(
            cluster="test",
            name="broker-a",
            broker_id=0,
            identity=identity,
            started_ms=1,
            version="1",
            listeners=[Listener.parse("local=127.0.0.1:1")],
            permission=v2.READ_WRITE,
        )
        self.report.put_topic(topic_state("orders"))
        self.refusals: list[str] = []
        self.registration = Registration(
            self.report, Resolver([namesrv.broker_address]), self.transport, self.refusals.append
        )


async def permissions(namesrv: NameServer, transport: GrpcTransport, topic: str = "orders") -> list[int]:
    request = service_pb2.QueryRouteRequest(topic=v2.Resource(name=topic))
    channel = transport.channel(str(namesrv.listeners[0].bind))
    reply = await channel.unary(service_rpc.QUERY_ROUTE, request, timeout_s=TIMEOUT_S, metadata=HEADERS)
    return [queue.permission for queue in reply.message.message_queues]


async def becomes(namesrv: NameServer, transport: GrpcTransport, wanted: list[int], topic: str = "orders") -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while await permissions(namesrv, transport, topic) != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_register_change_refuse_and_say_goodbye(namesrv: NameServer):
    first, second = RegisteredBroker(namesrv, b"a" * 16), RegisteredBroker(namesrv, b"b" * 16)
    await first.registration.start()
    async with asyncio.timeout(TIMEOUT_S):
        while not namesrv.readiness.open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await becomes(namesrv, first.transport, [v2.READ_WRITE] * 4)
    first.report.put_topic(topic_state("new", 1))
    await becomes(namesrv, first.transport, [v2.READ_WRITE], "new")

    await second.registration.start()
    async with asyncio.timeout(TIMEOUT_S):
        while not second.refusals:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert "another broker with the name broker-a" in second.refusals[0]
    await second.registration.stop()

    await first.registration.stop()
    assert namesrv.registry.brokers == []
    for broker in (first, second):
        await broker.transport.close()


async def test_a_broken_connection_hides_the_broker_from_writers(namesrv: NameServer, monkeypatch: pytest.MonkeyPatch):
    broker, client = RegisteredBroker(namesrv, b"a" * 16), GrpcTransport()
    await broker.registration.start()
    async with asyncio.timeout(TIMEOUT_S):
        while not broker.registration.accepted_by:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def unreachable(address: str) -> Channel:
        raise RpcError(StatusCode.UNAVAILABLE, address)

    monkeypatch.setattr(broker.transport, "channel", unreachable)
    await broker.transport.close()
    await becomes(namesrv, client, [v2.READ] * 4)
    await broker.registration.stop()
    await client.close()
