"""Simple consumers by the stream door."""

import asyncio

import pytest

from kourou import (
    AsyncSimpleConsumer,
    ClosedError,
    ConnectionFailed,
    InvalidReceiptHandle,
    InvalidRequest,
    PartialFailure,
    Sql,
    TooManyRequests,
)
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from tests.unit.client.fake import Cluster, cluster, received, until
from tests.unit.client.fake_stream import StreamBroker, stream_cluster
from tests.unit.client.test_stream_consuming import batch


def one(c: Cluster) -> StreamBroker:
    broker = c.brokers[0]
    assert isinstance(broker, StreamBroker)
    return broker


async def test_receive_and_acknowledge():
    async with stream_cluster() as c, AsyncSimpleConsumer("g", {"t": "red || blue"}, c.namesrv) as consumer:
        await one(c).deliver("t", batch(1000))
        messages = await consumer.receive(2000, invisible_duration_s=7.5, wait_s=5)
        assert [int(message.body) for message in messages] == list(range(1000))
        opening = one(c).opens[0]
        assert opening.filter.expression == "red || blue"
        assert (opening.auto_renew, opening.invisible_duration.ToMilliseconds()) == (False, 7500)
        [credit] = one(c).credits
        assert credit.messages == 2000
        assert 0 < credit.wait.ToMilliseconds() <= 5000
        await consumer.ack([*messages[:100], *messages[900:]])
        [settle] = one(c).settles
        [settlement] = settle.settlements
        assert [(r.first, r.count) for r in settlement.ranges] == [(0, 100), (900, 100)]
        await consumer.ack(messages[500])
        await consumer.ack([*messages[100:500], *messages[501:900]])
        assert sorted(one(c).settled_offsets["acknowledged"]) == list(range(1000))
        assert one(c).receives == one(c).acks == []


async def test_nothing_there_and_what_comes_while_waiting():
    async with stream_cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        assert await consumer.receive(wait_s=0) == []
        assert await consumer.receive(wait_s=0.2) == []
        receiving = asyncio.create_task(consumer.receive(wait_s=10))
        await until(lambda: len(one(c).credits) == 3)
        await one(c).deliver("t", batch(3))
        assert len(await asyncio.wait_for(receiving, 5)) == 3
        assert len(one(c).opens) == 1


async def test_what_a_caller_did_not_wait_for_is_kept_for_the_next():
    async with stream_cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        receiving = asyncio.create_task(consumer.receive(10, wait_s=20))
        await until(lambda: one(c).credits)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        assert await consumer.receive(wait_s=0.1) == [], "the credit that is out is not waited for any longer"
        assert len(one(c).credits) == 1
        await one(c).deliver("t", batch(5))
        first = await consumer.receive(2, wait_s=5)
        rest = await consumer.receive(10, wait_s=5)
        assert [int(message.body) for message in [*first, *rest]] == list(range(5))
        assert len(one(c).credits) == 1
        await consumer.receive(wait_s=0)
        assert len(one(c).credits) == 2


async def test_what_is_kept_longer_than_its_invisible_time_goes_to_others():
    async with stream_cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        receiving = asyncio.create_task(consumer.receive(10, wait_s=20, invisible_duration_s=0.1))
        await until(lambda: one(c).credits)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        await one(c).deliver("t", batch(5))
        await until(lambda: one(c).lent)
        await asyncio.sleep(0.2)
        assert await consumer.receive(wait_s=0, invisible_duration_s=0.1) == []


async def test_several_at_a_time():
    async with stream_cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        receives = [asyncio.create_task(consumer.receive(1, wait_s=10)) for _ in range(5)]
        await until(lambda: len(one(c).credits) == 5)
        for n in range(5):
            await one(c).deliver("t", batch(1, n))
        got = await asyncio.wait_for(asyncio.gather(*receives), 5)
        assert sorted(int(message.body) for messages in got for message in messages) == list(range(5))
        assert [len(messages) for messages in got] == [1] * 5


async def test_all_brokers_in_rotation():
    async with stream_cluster(brokers=3) as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        for broker in c.brokers:
            assert isinstance(broker, StreamBroker)
            for n in range(2):
                await broker.deliver("t", batch(1, n))
        names = [(await consumer.receive(1, wait_s=5))[0].broker for _ in range(6)]
        assert sorted(names[:3]) == sorted(names[3:]) == ["broker-a", "broker-b", "broker-c"]


async def test_other_terms_open_the_stream_anew_and_keep_what_is_held():
    async with stream_cluster() as c, AsyncSimpleConsumer("g", {"t": Sql("a > 5")}, c.namesrv) as consumer:
        await one(c).deliver("t", batch(2))
        messages = await consumer.receive(wait_s=5, invisible_duration_s=30)
        await consumer.receive(wait_s=0, invisible_duration_s=60)
        await consumer.subscribe("t", Sql("a > 6"))
        await consumer.receive(wait_s=0, invisible_duration_s=60)
        first, second, third = one(c).opens
        assert [o.invisible_duration.seconds for o in (first, second, third)] == [30, 60, 60]
        assert [o.filter.expression for o in (first, second, third)] == ["a > 5", "a > 5", "a > 6"]
        assert len(second.held) == len(third.held) == 1
        await consumer.ack(messages)
        assert one(c).settled_offsets["acknowledged"] == [0, 1]


async def test_the_invisible_time_changes():
    async with stream_cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        await one(c).deliver("t", batch(2))
        messages = await consumer.receive(wait_s=5)
        handle = messages[0].receipt_handle
        await consumer.change_invisible_duration(messages[0], 60)
        assert messages[0].receipt_handle != handle
        await consumer.ack(messages)
        leases = [s.lease.number for settle in one(c).settles for s in settle.settlements]
        assert len(set(leases)) == 2
        assert sorted(one(c).settled_offsets["acknowledged"]) == [0, 1]


async def test_leases_that_have_ended():
    stale = v2.Status(code=v2.INVALID_RECEIPT_HANDLE)
    async with stream_cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        await one(c).deliver("t", batch(1))
        await one(c).deliver("t", batch(1, 1))
        messages = await consumer.receive(wait_s=5)
        one(c).settle_statuses += [stale, v2.Status(code=v2.OK)]
        with pytest.raises(PartialFailure) as failure:
            await consumer.ack(messages)
        assert [isinstance(outcome, InvalidReceiptHandle) for outcome in failure.value.outcomes] == [True, False]
        one(c).settle_statuses += [stale]
        with pytest.raises(InvalidReceiptHandle):
            await consumer.ack(messages[0])
        one(c).settle_statuses += [v2.Status(code=v2.TOO_MANY_REQUESTS)]
        with pytest.raises(TooManyRequests):
            await consumer.ack(messages[1])


async def test_a_stream_that_breaks():
    async with stream_cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        await one(c).deliver("t", batch(2))
        held = await consumer.receive(wait_s=5)
        receiving = asyncio.create_task(consumer.receive(wait_s=20))
        await until(lambda: len(one(c).credits) == 2)
        await one(c).stop()
        await one(c).start()
        await until(lambda: len(one(c).opens) == 2)
        assert len(one(c).opens[1].held) == 1
        await one(c).deliver("t", batch(1, 2))
        [message] = await asyncio.wait_for(receiving, 10)
        await consumer.ack([*held, message])
        assert sorted(one(c).settled_offsets["acknowledged"]) == [0, 1, 2]


async def test_a_broker_that_leaves_is_let_go_when_all_of_it_is_settled():
    async with (
        stream_cluster(brokers=2) as c,
        AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv, route_interval_s=0.02) as consumer,
    ):
        gone = c.brokers[1]
        assert isinstance(gone, StreamBroker)

        async def is_in_route(is_in: bool) -> None:
            if is_in:
                c.brokers.append(gone)
            else:
                c.brokers.remove(gone)
            pulled = len(c.name_servers[0].queries)
            await until(lambda: len(c.name_servers[0].queries) > pulled + 1)

        await gone.deliver("t", batch(1))
        messages = await consumer.receive(wait_s=5)
        await is_in_route(False)
        await consumer.receive(wait_s=0)
        assert len(gone.consuming) == 1, "a message of it is to be settled"
        await consumer.ack(messages)
        await consumer.receive(wait_s=0)
        await until(lambda: not gone.consuming)
        await is_in_route(True)


async def test_no_broker_at_all():
    async with stream_cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        await one(c).stop()
        with pytest.raises(ConnectionFailed):
            await consumer.receive(wait_s=0.2)


async def test_namespaces():
    async with stream_cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv, namespace="team") as consumer:
        await one(c).deliver("t", batch(1))
        [message] = await consumer.receive(wait_s=5)
        assert message.topic == "t"
        [opening] = one(c).opens
        assert (opening.group.resource_namespace, opening.topic.resource_namespace) == ("team", "team")


async def test_a_refused_stream():
    async with stream_cluster() as c, AsyncSimpleConsumer("g", {"t": Sql("a >")}, c.namesrv) as consumer:
        one(c).refusal = v2.Status(code=v2.ILLEGAL_FILTER_EXPRESSION, message="line 1")
        with pytest.raises(InvalidRequest, match="line 1"):
            await consumer.receive(wait_s=5)


async def test_closing_ends_a_receive():
    async with stream_cluster() as c:
        consumer = AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv)
        receiving = asyncio.create_task(consumer.receive(wait_s=20))
        await until(lambda: one(c).credits)
        await consumer.close()
        with pytest.raises(ClosedError):
            await asyncio.wait_for(receiving, 5)


async def test_a_broker_without_the_door_is_polled():
    async with cluster() as c, AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
        c.brokers[0].ready["t"].append(received("t", b"x", "h"))
        [message] = await consumer.receive(wait_s=5)
        await consumer.ack(message)
        assert c.brokers[0].acks
