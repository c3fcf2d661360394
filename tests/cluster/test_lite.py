"""Lite topics in real processes: by our consumers, and through a NameServer as most official clients do it."""

import asyncio
import json
from collections.abc import Callable

from kourou import AsyncLitePushConsumer, AsyncLiteSimpleConsumer, AsyncProducer, Message, ReceivedMessage, Tail
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.transport import GrpcTransport
from kourou.wire import Wire
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually

SESSIONS = [f"session-{number}" for number in range(12)]


def make(cluster: Cluster, name: str, *options: str) -> None:
    cluster.kourou("topic", "create", name, "--type", "lite", "--lite-expiration", "1h")
    cluster.kourou("group", "create", name, "--lite", name, *options)


async def send(producer: AsyncProducer, topic: str, sessions: list[str], bodies: str) -> None:
    for session in sessions:
        await asyncio.gather(*[producer.send(Message(topic, body.encode(), lite_topic=session)) for body in bodies])


async def test_each_lite_topic_is_heard_in_order(cluster: Cluster, operator: Operator, name: str) -> None:
    make(cluster, name)
    assert json.loads(cluster.kourou("topic", "show", name, "--json").stdout)["lite_expiration"] == "1h"
    heard: dict[str, bytes] = {}
    failed: set[str] = set()

    async def listen(message: ReceivedMessage) -> bool:
        session = message.lite_topic or ""
        if session == SESSIONS[0] and message.body == b"2" and session not in failed:
            failed.add(session)
            return False  # it comes again, and 3 waits for it
        heard[session] = heard.get(session, b"") + message.body
        return True

    cluster.kourou("group", "change", name, "--backoff", "1s")
    async with (
        AsyncLitePushConsumer(name, name, listen, cluster.namesrv) as consumer,
        AsyncProducer(cluster.namesrv) as producer,
    ):
        for session in SESSIONS[:10]:
            await consumer.subscribe(session)
        await send(producer, name, SESSIONS, "1234")
        wanted = dict.fromkeys(SESSIONS[:10], b"1234")
        await eventually(lambda: heard == wanted, 20)
        assert failed
        await consumer.subscribe(SESSIONS[10], start="last")
        await send(producer, name, SESSIONS[10:], "5")
        await eventually(lambda: heard == {**wanted, SESSIONS[10]: b"5"})

        async def settled() -> bool:
            return await operator.lag(name, name) == 0

        await eventually(settled)


async def test_through_a_name_server_all_brokers_hear_of_a_subscription(cluster: Cluster, name: str) -> None:
    make(cluster, name, "--lite-quota", "50")
    namesrv = cluster.namesrv.split(",")[0]
    async with (
        AsyncProducer(cluster.namesrv) as producer,
        AsyncLiteSimpleConsumer(name, name, cluster.namesrv) as consumer,
    ):
        await send(producer, name, SESSIONS, "1")
        assert await consumer.receive(wait_s=0.5) == []
        request = service_pb2.SyncLiteSubscriptionRequest(
            action=v2.COMPLETE_ADD, topic=v2.Resource(name=name), group=v2.Resource(name=name), lite_topic_set=SESSIONS
        )
        transport = GrpcTransport()
        try:
            await Wire(transport, consumer.client_id).call(namesrv, service_rpc.SYNC_LITE_SUBSCRIPTION, request)
        finally:
            await transport.close()
        messages = list[ReceivedMessage]()
        while len(messages) < len(SESSIONS):
            more = await consumer.receive(wait_s=5)
            assert more
            messages += more
            await consumer.ack(more)
        assert {message.lite_topic for message in messages} == set(SESSIONS)
        assert {message.broker for message in messages} == {"broker-a", "broker-b"}


async def test_the_last_to_subscribe_takes_a_lite_topic_over(cluster: Cluster, name: str) -> None:
    make(cluster, name, "--exclusive-lite")
    lost: list[str] = []
    async with (
        AsyncProducer(cluster.namesrv) as producer,
        AsyncLiteSimpleConsumer(name, name, cluster.namesrv, on_lost=lost.append) as first,
        AsyncLiteSimpleConsumer(name, name, cluster.namesrv) as second,
    ):
        await first.subscribe("a")
        await send(producer, name, ["a"], "1")
        (message,) = await first.receive(wait_s=5)
        await first.ack(message)
        await second.subscribe("a", start=Tail(1))
        await eventually(lambda: lost == ["a"])
        assert first.lite_topics == frozenset()
        (message,) = await second.receive(wait_s=5)
        assert message.body == b"1"
        await second.ack(message)
        await send(producer, name, ["a"], "2")
        assert await first.receive(wait_s=0.5) == []
        (message,) = await second.receive(wait_s=5)
        assert message.body == b"2"


async def test_a_broker_that_is_killed_goes_on_where_it_was(new_cluster: Callable[..., Cluster], name: str) -> None:
    cluster = new_cluster()
    make(cluster, name)
    async with (
        AsyncProducer(cluster.namesrv) as producer,
        AsyncLiteSimpleConsumer(name, name, cluster.namesrv) as consumer,
    ):
        await send(producer, name, ["a"], "123")
        await consumer.subscribe("a")
        (first,) = await consumer.receive(wait_s=5)
        await consumer.ack(first)
        broker = cluster.broker(first.broker)
        broker.kill()
        broker.start()
        cluster.wait_until_registered(broker)
        bodies = list[bytes]()
        while len(bodies) < 2:
            for message in await consumer.receive(wait_s=20):
                bodies.append(message.body)
                await consumer.ack(message)
        assert bodies == [b"2", b"3"]
