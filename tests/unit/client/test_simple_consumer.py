import asyncio

import pytest

from kourou import (
    AsyncSimpleConsumer,
    ClosedError,
    ConnectionFailed,
    Forbidden,
    InvalidArgument,
    InvalidReceiptHandle,
    PartialFailure,
    Sql,
    TopicNotFound,
)
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from tests.unit.client.fake import cluster, received, until


async def test_receive_and_acknowledge():
    async with cluster() as c, AsyncSimpleConsumer("g", {"t": "red || blue"}, c.namesrv) as consumer:
        broker = c.brokers[0]
        broker.ready["t"] += [received("t", b"1", "h1"), received("t", b"2", "h2", attempt=2)]
        one, two = await consumer.receive(10, invisible_duration_s=7.5, wait_s=1)
        assert (one.body, one.attempt, two.body, two.attempt) == (b"1", 1, b"2", 2)
        assert (one.broker, one.address, one.message_id) == ("broker-a", broker.address, "id-h1")
        [asked] = broker.receives
        assert asked.group.name == "g"
        assert (asked.filter_expression.type, asked.filter_expression.expression) == (v2.TAG, "red || blue")
        assert asked.batch_size == 10
        assert not asked.auto_renew
        assert asked.invisible_duration.ToMilliseconds() == 7500
        await consumer.ack([one, two])
        [ack] = broker.acks
        assert [entry.receipt_handle for entry in ack.entries] == ["h1", "h2"]


async def test_filters_by_sql():
    async with cluster() as c, AsyncSimpleConsumer("g", {"t": Sql("a > 5")}, c.namesrv) as consumer:
        broker = c.brokers[0]
        await consumer.receive(wait_s=0)
        await consumer.subscribe("t", Sql("a > 6"))
        await consumer.receive(wait_s=0)
        await until(lambda: len(broker.settings) == 2)
        told = [settings.subscription.subscriptions[0].expression for settings in broker.settings]
        asked = [receive.filter_expression for receive in broker.receives]
        for expressions in (told, asked):
            assert [(each.type, each.expression) for each in expressions] == [(v2.SQL, "a > 5"), (v2.SQL, "a > 6")]


async def test_nothing_there():
    async with cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        assert await consumer.receive(wait_s=0.5) == []
        assert c.brokers[0].receives[0].long_polling_timeout.ToMilliseconds() in range(1, 501)


async def test_all_brokers_in_rotation():
    async with cluster(brokers=3) as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        for broker in c.brokers:
            broker.ready["t"] += [received("t", broker.name.encode(), f"{broker.name}-{i}") for i in range(2)]
        bodies = [(await consumer.receive(1, wait_s=5))[0].body for _ in range(6)]
        assert sorted(bodies[:3]) == sorted(bodies[3:]) == [b"broker-a", b"broker-b", b"broker-c"]


async def test_a_message_that_comes_while_waiting_on_several_brokers():
    async with cluster(brokers=2) as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        receiving = asyncio.create_task(consumer.receive(wait_s=10))
        await until(lambda: sum(len(broker.receives) for broker in c.brokers) >= 3)
        c.brokers[1].ready["t"].append(received("t", b"late", "h"))
        [message] = await asyncio.wait_for(receiving, 3)
        assert message.body == b"late"


async def test_a_lost_answer_is_asked_for_again_by_its_attempt_id():
    async with cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        broker = c.brokers[0]
        broker.ready["t"].append(received("t", b"1", "h1"))
        broker.lose_receives = 1
        [message] = await consumer.receive(wait_s=1)
        assert message.body == b"1"
        first, second = broker.receives
        assert first.attempt_id == second.attempt_id != ""
        await consumer.receive(wait_s=0)
        assert broker.receives[2].attempt_id != first.attempt_id


async def test_a_broker_that_is_down_does_not_stop_the_others():
    async with cluster(brokers=2) as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        await c.brokers[0].stop()
        c.brokers[1].ready["t"] += [received("t", b"x", str(i)) for i in range(3)]
        for _ in range(3):
            assert await consumer.receive(1, wait_s=3)


async def test_no_broker_at_all():
    async with cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        await c.brokers[0].stop()
        with pytest.raises(ConnectionFailed):
            await consumer.receive(wait_s=0.2)


async def test_closing_ends_a_receive():
    async with cluster(brokers=2) as c:
        consumer = AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv)
        receiving = asyncio.create_task(consumer.receive(wait_s=20))
        await until(lambda: sum(len(broker.receives) for broker in c.brokers) >= 3)
        await consumer.close()
        with pytest.raises(ClosedError):
            await asyncio.wait_for(receiving, 3)


async def test_unknown_topic():
    async with cluster() as c, AsyncSimpleConsumer("g", {"nope": "*"}, c.namesrv) as consumer:
        with pytest.raises(TopicNotFound, match="kourou topic create"):
            await consumer.receive(wait_s=1)


async def test_stale_handles():
    async with cluster(brokers=2) as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        messages = []
        for broker in c.brokers:
            broker.ready["t"] += [received("t", b"x", f"{broker.name}-{i}") for i in range(2)]
        for _ in range(2):
            messages += await consumer.receive(wait_s=1)
        c.brokers[0].stale_handles = {"broker-a-0"}
        with pytest.raises(PartialFailure) as failure:
            await consumer.ack(messages)
        for message, outcome in zip(messages, failure.value.outcomes, strict=True):
            assert isinstance(outcome, InvalidReceiptHandle) == (message.receipt_handle == "broker-a-0")
        stale = next(message for message in messages if message.receipt_handle == "broker-a-0")
        with pytest.raises(InvalidReceiptHandle):
            await consumer.ack(stale)


async def test_changing_the_invisible_time_brings_a_new_handle():
    async with cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        c.brokers[0].ready["t"].append(received("t", b"x", "h"))
        [message] = await consumer.receive(wait_s=1)
        await consumer.change_invisible_duration(message, 0)
        assert message.receipt_handle == "h+"
        assert c.brokers[0].changes[0].invisible_duration.ToMilliseconds() == 0
        await consumer.ack(message)
        assert c.brokers[0].acks[0].entries[0].receipt_handle == "h+"


async def test_subscriptions_change_and_are_announced():
    async with cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        c.topics["u"] = 1
        broker = c.brokers[0]
        await consumer.receive(wait_s=0)
        await until(lambda: broker.settings)
        await consumer.subscribe("u", "red")
        await until(lambda: len(broker.settings) == 2)
        told = {
            entry.topic.name: entry.expression.expression for entry in broker.settings[1].subscription.subscriptions
        }
        assert told == {"t": "*", "u": "red"}
        await consumer.unsubscribe("t")
        broker.ready["t"].append(received("t", b"x", "1"))
        broker.ready["u"].append(received("u", b"y", "2"))
        assert [message.topic for message in await consumer.receive(wait_s=1)] == ["u"]
        assert await consumer.receive(wait_s=0) == []


@pytest.mark.parametrize("subscriptions", ["t", {"t": " "}, {"t": Sql(" ")}, {"no spaces": "*"}])
def test_illegal_subscriptions(subscriptions):
    with pytest.raises(InvalidArgument):
        AsyncSimpleConsumer("g", subscriptions)


def test_illegal_group():
    with pytest.raises(InvalidArgument, match="group"):
        AsyncSimpleConsumer("no spaces", {"t": "*"})


async def test_a_topic_that_cannot_be_read_now():
    async with cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        c.topics["t"] = 0
        with pytest.raises(Forbidden, match="kourou route"):
            await consumer.receive()
        await consumer.unsubscribe("t")
        with pytest.raises(InvalidArgument, match="no topic is subscribed"):
            await consumer.receive()
