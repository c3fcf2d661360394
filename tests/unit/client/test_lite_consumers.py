import asyncio
from typing import Any

import pytest

from kourou import AsyncLitePushConsumer, AsyncLiteSimpleConsumer, ConnectionFailed, InvalidArgument, Tail, lite_topics
from kourou.errors import KourouError
from kourou.lite_topics import LiteStart
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2
from tests.unit.client.fake import Broker, cluster, received, until


def syncs(broker: Broker) -> list[tuple[str, list[str]]]:
    actions = v2.LiteSubscriptionAction
    return [(actions.Name(sync.action), sorted(sync.lite_topic_set)) for sync in broker.lite_syncs]


async def test_all_brokers_are_told_and_what_is_received_is_acknowledged():
    async with cluster(brokers=2) as c, AsyncLiteSimpleConsumer("g", "t", c.namesrv) as consumer:
        await consumer.subscribe("a")
        for broker in c.brokers:
            assert syncs(broker) == [("PARTIAL_ADD", ["a"])]
            [sync] = broker.lite_syncs
            assert (sync.group.name, sync.topic.name, sync.HasField("offset_option")) == ("g", "t", False)
            assert broker.settings[0].client_type == v2.LITE_SIMPLE_CONSUMER
        c.brokers[0].ready["t"].append(received("t", b"1", "h1"))
        [message] = await consumer.receive(wait_s=5)
        await consumer.ack(message)
        assert consumer.lite_topics == {"a"}
        await consumer.unsubscribe("a")
        await consumer.unsubscribe("a")
        assert syncs(c.brokers[1])[1:] == [("PARTIAL_REMOVE", ["a"])]
        assert not consumer.lite_topics


async def test_they_are_told_again_and_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lite_topics, "SYNC_INTERVAL_S", 0.05)
    async with cluster() as c, AsyncLiteSimpleConsumer("g", "t", c.namesrv) as consumer:
        await consumer.subscribe("a")
        await consumer.subscribe("b")
        await until(lambda: syncs(c.brokers[0])[-2:] == [("COMPLETE_ADD", ["a", "b"])] * 2)


async def test_a_broker_that_started_again_is_told_at_once():
    async with cluster() as c, AsyncLiteSimpleConsumer("g", "t", c.namesrv) as consumer:
        await consumer.subscribe("a")
        broker = c.brokers[0]
        await broker.stop()
        await broker.start()
        await until(lambda: syncs(broker)[-1] == ("COMPLETE_ADD", ["a"]))


async def test_a_listener_hears_what_its_consumer_reads():
    heard: list[bytes] = []
    async with cluster() as c:
        broker = c.brokers[0]
        broker.assign = lambda topic: [broker.queue(topic, -1)]
        async with AsyncLitePushConsumer("g", "t", lambda message: heard.append(message.body), c.namesrv) as consumer:
            await consumer.subscribe("a")
            broker.ready["t"].append(received("t", b"1", "h1"))
            await until(lambda: heard == [b"1"] and broker.acks)
            assert broker.settings[0].client_type == v2.LITE_PUSH_CONSUMER
            assert broker.heartbeats[0].client_type == v2.LITE_PUSH_CONSUMER


@pytest.mark.parametrize(
    ("start", "option"),
    [
        ("first", v2.OffsetOption(policy=v2.OffsetOption.MIN)),
        ("last", v2.OffsetOption(policy=v2.OffsetOption.MAX)),
        (7, v2.OffsetOption(offset=7)),
        (Tail(3), v2.OffsetOption(tail_n=3)),
    ],
)
async def test_where_to_start(start: LiteStart, option: v2.OffsetOption):
    async with cluster() as c, AsyncLiteSimpleConsumer("g", "t", c.namesrv) as consumer:
        await consumer.subscribe("a", start=start)
        assert c.brokers[0].lite_syncs[0].offset_option == option


@pytest.mark.parametrize(
    ("name", "start"), [("", None), ("a b", None), ("x" * 65, None), ("a", -1), ("a", Tail(-1)), ("a", "middle")]
)
async def test_what_makes_no_sense_is_refused_here(name: str, start: Any):
    async with cluster() as c, AsyncLiteSimpleConsumer("g", "t", c.namesrv) as consumer:
        with pytest.raises(InvalidArgument):
            await consumer.subscribe(name, start=start)
        assert not c.brokers[0].lite_syncs


async def test_a_refusal_of_a_broker_is_raised():
    async with cluster(brokers=2) as c, AsyncLiteSimpleConsumer("g", "t", c.namesrv) as consumer:
        c.brokers[1].lite_status = v2.Status(code=v2.LITE_SUBSCRIPTION_QUOTA_EXCEEDED, message="too many")
        with pytest.raises(KourouError, match="too many"):
            await consumer.subscribe("a")
        assert not consumer.lite_topics


async def test_one_broker_may_be_away_but_not_all():
    async with cluster(brokers=2) as c, AsyncLiteSimpleConsumer("g", "t", c.namesrv) as consumer:
        await c.brokers[0].stop()
        await consumer.subscribe("a")
        assert syncs(c.brokers[1]) == [("PARTIAL_ADD", ["a"])]
        await c.brokers[1].stop()
        with pytest.raises(ConnectionFailed):
            await consumer.subscribe("b")
        assert consumer.lite_topics == {"a"}


async def test_a_lite_topic_that_another_member_took_over():
    lost: list[str] = []

    async def on_lost(name: str) -> None:
        lost.append(name)

    async with cluster() as c, AsyncLiteSimpleConsumer("g", "t", c.namesrv, on_lost=on_lost) as consumer:
        await consumer.subscribe("a")
        await consumer.subscribe("b")
        command = service_pb2.NotifyUnsubscribeLiteCommand(lite_topic="a")
        for _ in range(2):
            await c.brokers[0].tell(service_pb2.TelemetryCommand(notify_unsubscribe_lite_command=command))
        await until(lambda: lost)
        await asyncio.sleep(0.05)
        assert lost == ["a"]
        assert consumer.lite_topics == {"b"}
