"""Sending messages of every type: which share a request, and where they go."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from grpc import StatusCode

from kourou import (
    AsyncProducer,
    ConnectionFailed,
    Forbidden,
    InvalidArgument,
    InvalidRequest,
    Message,
    PartialFailure,
    TimeoutExceeded,
)
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.route import Route
from tests.unit.client.fake import Broker, Cluster, abort, cluster, hang, refuse, until


def of_group(body: str, group: str = "g") -> Message:
    return Message("t", body.encode(), message_group=group)


def bodies(broker: Broker) -> list[list[str]]:
    """Of each request."""
    return [[message.body.decode() for message in request.messages] for request in broker.sends]


def stored(broker: Broker) -> list[str]:
    return [message.body.decode() for message in broker.stored["t"]]


async def home(producer: AsyncProducer, c: Cluster) -> Broker:
    """Where the messages of group g go."""
    result = await producer.send(of_group("first"))
    return next(broker for broker in c.brokers if broker.name == result.broker)


def test_the_queue_of_a_message_group_is_the_one_of_official_clients():
    """SipHash-2-4 with the key 00 to 0f, signed, over the writable queues as they are listed: the hash's own vector."""
    names = [f"broker-{letter}" for letter in "abc"]
    queues = [
        v2.MessageQueue(topic=v2.Resource(name="t"), id=queue_id, permission=permission, broker=v2.Broker(name=name))
        for name, permission in zip(names, (v2.READ_WRITE, v2.READ, v2.WRITE), strict=True)
        for queue_id in range(5)
    ]
    for queue in queues:
        queue.broker.endpoints.addresses.add(host="localhost", port=1)
    group = bytes(range(15)).decode()
    digest = 0xA129CA6149BE45E5 - (1 << 64)
    writable = [(name, queue_id) for name in ("broker-a", "broker-c") for queue_id in range(5)]
    chosen = Route("t", queues).queue_of_group(group)
    assert chosen is not None
    assert (chosen.broker, chosen.id) == writable[digest % 10]
    assert Route("t", []).queue_of_group(group) is None


async def test_a_message_group_has_one_queue_and_groups_are_spread():
    async with cluster(brokers=2) as c, AsyncProducer(c.namesrv) as producer:
        places = [
            {((sent := await producer.send(of_group("x", f"g{n}"))).broker, sent.queue_id) for _ in range(3)}
            for n in range(20)
        ]
        assert all(len(place) == 1 for place in places)
        assert {next(iter(place))[0] for place in places} == {"broker-a", "broker-b"}
        asked = [request.messages[0] for broker in c.brokers for request in broker.sends]
        assert {message.system_properties.message_type for message in asked} == {v2.FIFO}
        by_group = Counter((m.system_properties.message_group, m.system_properties.queue_id) for m in asked)
        assert len(by_group) == 20


async def test_calls_of_one_group_leave_one_request_after_the_other_in_their_order():
    async with cluster(brokers=2) as c, AsyncProducer(c.namesrv) as producer:
        broker = await home(producer, c)
        broker.send_gate.clear()
        sends = [asyncio.ensure_future(producer.send(of_group("0")))]
        await until(lambda: len(broker.sends) == 2)
        sends += [asyncio.ensure_future(producer.send(of_group(str(n)))) for n in range(1, 10)]
        await asyncio.sleep(0.05)
        assert len(broker.sends) == 2, "the others wait for the one under way"
        broker.send_gate.set()
        offsets = [result.offset for result in await asyncio.gather(*sends)]
        assert offsets == sorted(offsets)
        assert bodies(broker) == [["first"], ["0"], [str(n) for n in range(1, 10)]]


async def test_a_retry_keeps_the_order_and_the_broker():
    async with cluster(brokers=2) as c, AsyncProducer(c.namesrv) as producer:
        broker = await home(producer, c)
        broker.send_scripts += [abort(StatusCode.UNAVAILABLE)] * 4
        sends = [asyncio.ensure_future(producer.send(of_group(str(n)))) for n in range(3)]
        await asyncio.gather(*sends)
        assert stored(broker) == ["first", "0", "1", "2"]
        assert sum(len(other.sends) for other in c.brokers if other is not broker) == 0


async def test_no_other_broker_gets_what_the_groups_own_one_refuses():
    async with cluster(brokers=2) as c, AsyncProducer(c.namesrv, send_timeout_s=30) as producer:
        broker = await home(producer, c)
        broker.send_scripts.append(refuse(v2.FORBIDDEN, "writes are off"))
        with pytest.raises(Forbidden, match=rf"'g' of topic t has its place on broker {broker.name}.*writes are off"):
            await asyncio.wait_for(producer.send(of_group("x")), 5)
        assert sum(len(other.sends) for other in c.brokers if other is not broker) == 0
        await broker.stop()
        with pytest.raises(ConnectionFailed):
            await producer.send(of_group("y"), timeout_s=0.5)
        assert sum(len(other.sends) for other in c.brokers if other is not broker) == 0


async def test_a_message_that_waits_too_long_behind_others_is_never_sent():
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        await producer.send(of_group("first"))
        broker = c.brokers[0]
        broker.send_gate.clear()
        slow = asyncio.ensure_future(producer.send(of_group("slow"), timeout_s=20))
        await until(lambda: len(broker.sends) == 2)
        with pytest.raises(TimeoutExceeded, match="behind older messages"):
            await producer.send(of_group("late"), timeout_s=0.1)
        broker.send_gate.set()
        await slow
        await producer.send(of_group("next"))
        assert stored(broker) == ["first", "slow", "next"]


async def test_one_that_is_refused_does_not_hurt_those_of_other_callers():
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        broker = c.brokers[0]
        await producer.send(of_group("first"))
        broker.send_gate.clear()
        slow = asyncio.ensure_future(producer.send(of_group("slow")))
        await until(lambda: len(broker.sends) == 2)
        broker.send_scripts += [refuse(v2.ILLEGAL_MESSAGE_KEY), refuse(v2.ILLEGAL_MESSAGE_KEY)]
        sends = [asyncio.ensure_future(producer.send(of_group(str(n)))) for n in range(3)]
        await asyncio.sleep(0)
        broker.send_gate.set()
        outcomes = await asyncio.gather(slow, *sends, return_exceptions=True)
        assert [isinstance(outcome, InvalidRequest) for outcome in outcomes] == [False, True, False, False]
        assert stored(broker) == ["first", "slow", "1", "2"]


async def test_many_messages_are_cut_into_requests_that_have_one_queue():
    later = datetime.now(UTC) + timedelta(hours=1)
    messages = [
        *(of_group(f"{group}{n}", group) for n in range(3) for group in ("g", "h")),
        *(Message("t", f"p{n}".encode(), priority=n % 2) for n in range(4)),
        *(Message("t", f"d{n}".encode(), delivery_time=later + timedelta(seconds=n)) for n in range(3)),
        *(Message("t", f"l{n}".encode(), lite_topic=f"lite{n % 2}") for n in range(4)),
        Message("t", b"n"),
    ]
    async with cluster(brokers=2) as c, AsyncProducer(c.namesrv) as producer:
        results = await producer.send_many(messages)
        assert len(results) == len(messages)
        requests = sorted(request for broker in c.brokers for request in bodies(broker))
        assert requests == [
            ["d0", "d1", "d2"],
            ["g0", "g1", "g2"],
            ["h0", "h1", "h2"],
            ["l0", "l2"],
            ["l1", "l3"],
            ["n"],
            ["p0", "p2"],
            ["p1", "p3"],
        ]
        for result, message in zip(results, messages, strict=True):
            broker = next(broker for broker in c.brokers if broker.name == result.broker)
            assert broker.stored["t"][result.offset].body == message.body


async def test_of_a_group_nothing_is_sent_that_follows_a_request_that_failed():
    messages = [of_group(str(n)) for n in range(300)] + [of_group("other", "h")]
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        await producer.send(of_group("first"))
        c.brokers[0].send_gate.clear()
        sending = asyncio.create_task(producer.send_many(messages))
        await until(lambda: len(c.brokers[0].sends) == 3)
        c.brokers[0].send_scripts.append(refuse(v2.ILLEGAL_MESSAGE_KEY))
        c.brokers[0].send_gate.set()
        with pytest.raises(PartialFailure) as failure:
            await sending
        failed = [isinstance(outcome, InvalidRequest) for outcome in failure.value.outcomes]
        assert failed == [False] * 128 + [True] * 172 + [False]
        assert len(c.brokers[0].stored["t"]) == 1 + 128 + 1


async def test_priorities_share_requests_only_with_their_like():
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        await producer.send(Message("t", b"first", priority=0))
        c.brokers[0].send_gate.clear()
        sends = [asyncio.ensure_future(producer.send(Message("t", b"x", priority=n % 2))) for n in range(20)]
        await until(lambda: len(c.brokers[0].sends) >= 3)
        c.brokers[0].send_gate.set()
        await asyncio.gather(*sends)
        for request in c.brokers[0].sends:
            assert len({message.system_properties.priority for message in request.messages}) == 1


async def test_closing_ends_what_waits_in_line():
    async with cluster() as c:
        producer = AsyncProducer(c.namesrv)
        await producer.send(of_group("first"))
        c.brokers[0].send_scripts.append(hang)
        sends = [asyncio.ensure_future(producer.send(of_group(str(n)), timeout_s=60)) for n in range(3)]
        await until(lambda: len(c.brokers[0].sends) == 2)
        await producer.close()
        outcomes = await asyncio.wait_for(asyncio.gather(*sends, return_exceptions=True), 5)
        assert [type(outcome).__name__ for outcome in outcomes] == ["ClosedError"] * 3


async def test_a_delayed_message_is_taken_back_by_its_handle():
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        c.brokers[0].recall_handle = "handle-1"
        later = datetime.now(UTC) + timedelta(hours=1)
        sent = await producer.send(Message("t", b"x", delivery_time=later))
        assert (sent.recall_handle, sent.queue_id, sent.offset) == ("handle-1", -1, -1)
        assert sent.offset_message_id == "broker-a@1f40.0"
        assert await producer.recall("t", "handle-1") == "id-of-handle-1"
        asked = c.name_servers[0].recalls[0]
        assert (asked.topic.name, asked.recall_handle) == ("t", "handle-1")
        c.name_servers[0].recall_status = v2.Status(code=v2.BAD_REQUEST, message="its time is over")
        with pytest.raises(InvalidRequest, match="its time is over"):
            await producer.recall("t", "handle-1")
        with pytest.raises(InvalidArgument, match="empty"):
            await producer.recall("t", "")
        c.brokers[0].recall_handle = ""
        assert (await producer.send(Message("t", b"x"))).recall_handle is None
