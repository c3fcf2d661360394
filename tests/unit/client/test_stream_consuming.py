"""Push consumers by the stream door."""

import asyncio
import threading
from typing import Any

import pytest

from kourou import AsyncPushConsumer, InvalidArgument, InvalidRequest, Message, ReceivedMessage, Sql, fed_stream
from kourou.batch import encode
from kourou.message_id import message_id_after, new_message_ids
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2.service_pb2 import ReconnectEndpointsCommand, TelemetryCommand
from kourou.protocol.kourou.stream.v1 import stream_pb2
from tests.unit.client.fake import Cluster, cluster, received, until
from tests.unit.client.fake_stream import Batch, StreamBroker, stream_cluster


def one(c: Cluster) -> StreamBroker:
    broker = c.brokers[0]
    assert isinstance(broker, StreamBroker)
    return broker


def batch(count: int, base: int = 0, *, attempt: int = 1, **fields: Any) -> Batch:
    messages = [Message("t", b"%d" % (base + n), **fields) for n in range(count)]
    encoded = encode(messages, new_message_ids(count), 1_700_000_000_000, None)
    return Batch(base, encoded.headers, encoded.bodies, count, attempt)


async def _heed(message: ReceivedMessage) -> None:
    pass


async def test_a_batch_is_heard_message_by_message_and_settled_as_one():
    heard: list[ReceivedMessage] = []

    async def listener(message: ReceivedMessage) -> None:
        heard.append(message)

    async with stream_cluster() as c:
        async with AsyncPushConsumer("g", {"t": "red"}, listener, c.namesrv):
            await one(c).deliver("t", batch(100, 7, tag="red", keys=["k"], properties={"a": "b"}))
            await until(lambda: len(one(c).settled_offsets["acknowledged"]) == 100)
        assert [int(message.body) for message in heard] == list(range(7, 107))
        first, last = heard[0], heard[-1]
        assert (first.tag, first.keys, first.properties, first.topic) == ("red", ("k",), {"a": "b"}, "t")
        assert (first.offset, last.offset, first.queue_id, first.attempt) == (7, 106, 3, 1)
        assert (first.broker, first.address) == ("broker-a", one(c).address)
        assert last.message_id == message_id_after(first.message_id, 99)
        assert first.stored_at is not None
        assert first.stored_at.timestamp() == first.born_at.timestamp() == 1_700_000_000
        assert first.dead_letter_of is None
        assert "queue_id=3, offset=7" in repr(first)
        assert len({message.receipt_handle for message in heard}) == 100
        opening = one(c).opens[0]
        assert (opening.group.name, opening.topic.name, opening.filter.expression) == ("g", "t", "red")
        assert opening.auto_renew
        assert not opening.HasField("invisible_duration")
        assert set(opening.codecs) == {stream_pb2.CODEC_ZSTD, stream_pb2.CODEC_LZ4}
        assert one(c).receives == []
        assert one(c).goodbyes[0].group.name == "g"
        ranges = [r for settle in one(c).settles for s in settle.settlements for r in s.ranges]
        assert len(ranges) <= 3


async def test_single_messages():
    heard: list[ReceivedMessage] = []

    async def listener(message: ReceivedMessage) -> None:
        heard.append(message)

    async with stream_cluster() as c:
        singles = [received("t", b"%d" % n, "") for n in range(3)]
        delivery = stream_pb2.Delivery(
            attempt=2,
            messages=[single.SerializeToString() for single in singles],
            offsets=[5, 8, 9],
            messages_stored_ms=[1_700_000_000_000] * 3,
        )
        async with AsyncPushConsumer("g", {"t": "*"}, listener, c.namesrv):
            await one(c).deliver("t", delivery)
            await until(lambda: len(one(c).settled_offsets["acknowledged"]) == 3)
        assert [(m.body, m.offset, m.attempt, m.queue_id) for m in heard] == [
            (b"0", 5, 2, 3),
            (b"1", 8, 2, 3),
            (b"2", 9, 2, 3),
        ]
        assert sorted(one(c).settled_offsets["acknowledged"]) == [5, 8, 9]


async def test_what_the_listener_fails_on_comes_again_after_the_groups_backoff():
    async def listener(message: ReceivedMessage) -> bool:
        if int(message.body) == 3:
            raise ValueError("listener")
        return int(message.body) != 5

    async with stream_cluster() as c:
        policy = one(c).settings_answer.backoff_policy
        for seconds in (1, 5, 10):
            policy.customized_backoff.next.add(seconds=seconds)
        async with AsyncPushConsumer("g", {"t": "*"}, listener, c.namesrv):
            await one(c).deliver("t", batch(10, attempt=2))
            await until(lambda: len(one(c).settled_offsets["acknowledged"]) == 8)
            await until(lambda: len(one(c).settled_offsets["again_after"]) == 2)
        assert sorted(one(c).settled_offsets["again_after"]) == [3, 5]
        delays = [
            s.again_after.seconds for settle in one(c).settles for s in settle.settlements if s.again_after.seconds
        ]
        assert delays == [5, 5]


async def test_lists_of_messages():
    calls: list[list[int]] = []

    def listener(messages: list[ReceivedMessage]) -> object:
        assert threading.current_thread() is not threading.main_thread()
        calls.append([int(message.body) for message in messages])
        if calls[-1][0] == 10:
            raise ValueError("all of them")
        return [message for message in messages if int(message.body) % 10 == 3]

    async with stream_cluster() as c:
        async with AsyncPushConsumer("g", {"t": "*"}, namesrv=c.namesrv, batch_listener=listener, concurrency=1):
            for base in (0, 10, 20):
                await one(c).deliver("t", batch(10, base))
            await until(lambda: len(one(c).settled_offsets["acknowledged"]) == 18)
            await until(lambda: len(one(c).settled_offsets["again_after"]) == 12)
        assert calls == [list(range(base, base + 10)) for base in (0, 10, 20)]
        assert sorted(one(c).settled_offsets["again_after"]) == [3, *range(10, 20), 23]


async def test_lists_of_messages_from_a_broker_without_the_door():
    calls: list[int] = []

    async def listener(messages: list[ReceivedMessage]) -> None:
        calls.append(len(messages))

    async with cluster() as c:
        broker = c.brokers[0]
        broker.assign = lambda topic: [broker.queue(topic, -1)]
        broker.ready["t"] += [received("t", b"x", str(n)) for n in range(40)]
        async with AsyncPushConsumer("g", {"t": "*"}, namesrv=c.namesrv, batch_listener=listener):
            await until(lambda: sum(len(ack.entries) for ack in broker.acks) == 40)
        assert calls == [32, 8]


@pytest.mark.parametrize("listeners", [{}, {"listener": _heed, "batch_listener": _heed}])
def test_one_listener(listeners):
    with pytest.raises(InvalidArgument, match="a listener or a batch_listener"):
        AsyncPushConsumer("g", {"t": "*"}, **listeners)


async def test_the_pipe_never_runs_dry_and_the_cache_is_bounded():
    gate = asyncio.Event()

    async def listener(message: ReceivedMessage) -> None:
        await gate.wait()

    async with stream_cluster() as c, AsyncPushConsumer("g", {"t": "*"}, listener, c.namesrv, max_cached_count=40):
        await until(lambda: len(one(c).credits) == 3)
        assert one(c).credits[0].HasField("wait")
        assert [credit.HasField("wait") for credit in one(c).credits[1:]] == [False, False]
        assert {credit.messages for credit in one(c).credits} == {10}
        for base in range(0, 200, 10):
            await one(c).deliver("t", batch(10, base))
        await until(lambda: len(one(c).batches["t"]) <= 20 - 2)
        await asyncio.sleep(0.05)
        assert 20 - len(one(c).batches["t"]) in (2, 3), "a credit's messages, and the credits that may be out"
        gate.set()
        await until(lambda: len(one(c).settled_offsets["acknowledged"]) == 200)


async def test_a_fast_listener_is_given_more_at_a_time_and_a_slow_one_less(monkeypatch):
    monkeypatch.setattr(fed_stream, "_SLOW_S", 0.02)
    gate = asyncio.Event()
    gate.set()

    async def listener(message: ReceivedMessage) -> None:
        await gate.wait()

    async with stream_cluster() as c, AsyncPushConsumer("g", {"t": "*"}, listener, c.namesrv, concurrency=1):
        for base in range(0, 4000, 1000):
            await one(c).deliver("t", batch(1000, base))
            await until(lambda: not one(c).batches["t"])
        await until(lambda: len(one(c).settled_offsets["acknowledged"]) == 4000)
        assert one(c).credits[0].messages == 256
        assert one(c).credits[-1].messages > 256
        gate.clear()
        for base in range(4000, 10_000, 1000):
            await one(c).deliver("t", batch(1000, base))
        await asyncio.sleep(0.4)
        assert one(c).batches["t"], "it has not taken all of them"
        gate.set()
        await until(lambda: len(one(c).settled_offsets["acknowledged"]) == 10_000)
        assert min(credit.messages for credit in one(c).credits) <= 64


async def test_an_operator_makes_it_connect_anew():
    async with stream_cluster() as c, AsyncPushConsumer("g", {"t": "*"}, _heed, c.namesrv) as consumer:
        await until(lambda: len(one(c).opens) == 1)
        await one(c).tell(TelemetryCommand(reconnect_endpoints_command=ReconnectEndpointsCommand(nonce="1")))
        await until(lambda: len(one(c).opens) == 2)
        await one(c).deliver("t", batch(3))
        await until(lambda: len(one(c).settled_offsets["acknowledged"]) == 3)
        assert consumer.client_id


async def test_after_a_reconnect_what_is_still_worked_on_is_held_and_settled_there():
    gate = asyncio.Event()
    heard: list[int] = []

    async def listener(message: ReceivedMessage) -> None:
        heard.append(int(message.body))
        if int(message.body) < 10:
            await gate.wait()

    async with stream_cluster() as c:
        async with AsyncPushConsumer("g", {"t": "*"}, listener, c.namesrv, concurrency=20):
            await one(c).deliver("t", batch(10))
            await one(c).deliver("t", batch(10, 10))
            await until(lambda: len(one(c).settled_offsets["acknowledged"]) == 10)
            [number] = one(c).lent
            await one(c).stop()
            await one(c).start()
            await until(lambda: len(one(c).opens) == 2)
            assert [lease.number for lease in one(c).opens[1].held] == [number]
            gate.set()
            await until(lambda: len(one(c).settled_offsets["acknowledged"]) == 20)
        assert sorted(heard) == list(range(20)), "none came twice"
        assert one(c).lent == {}


async def test_settlements_without_an_answer_are_asked_again_by_the_next_stream():
    async with stream_cluster() as c:
        one(c).settle_gate.clear()
        async with AsyncPushConsumer("g", {"t": "*"}, _heed, c.namesrv):
            await one(c).deliver("t", batch(10))
            await until(lambda: one(c).settles)
            await one(c).stop()
            one(c).settle_gate.set()
            await one(c).start()
            await until(lambda: len(one(c).settled_offsets["acknowledged"]) == 10)
            assert len(one(c).opens[1].held) == 1


async def test_settlements_that_pass_are_tried_again_and_stale_ones_given_up():
    async with stream_cluster() as c:
        one(c).settle_statuses += [v2.Status(code=v2.TOO_MANY_REQUESTS)] * 2
        async with AsyncPushConsumer("g", {"t": "*"}, _heed, c.namesrv):
            await one(c).deliver("t", batch(1))
            await until(lambda: one(c).settled_offsets["acknowledged"] == [0])
            assert len(one(c).settles) == 3
            one(c).settle_statuses.append(v2.Status(code=v2.INVALID_RECEIPT_HANDLE))
            await one(c).deliver("t", batch(1, 1))
            await until(lambda: len(one(c).settles) == 4)
            await asyncio.sleep(0.1)
            assert len(one(c).settles) == 4


async def test_in_order_by_message_group_and_dead_letters():
    heard: list[tuple[int, int]] = []

    async def listener(message: ReceivedMessage) -> bool:
        assert message.message_group == "x"
        heard.append((int(message.body), message.attempt))
        return int(message.body) != 1

    async with stream_cluster() as c:
        one(c).settings_answer.subscription.fifo = True
        one(c).settings_answer.backoff_policy.max_attempts = 3
        one(c).settings_answer.backoff_policy.customized_backoff.next.add().FromMilliseconds(1)
        async with AsyncPushConsumer("g", {"t": "*"}, listener, c.namesrv):
            await one(c).deliver("t", batch(3, message_group="x"))
            await until(lambda: len(one(c).settled_offsets["acknowledged"]) == 2)
        assert heard == [(0, 1), (1, 1), (1, 2), (1, 3), (2, 1)]
        assert one(c).settled_offsets["dead_letter"] == [1]


async def test_a_refused_stream_keeps_it_from_starting():
    async with stream_cluster() as c:
        one(c).refusal = v2.Status(code=v2.ILLEGAL_FILTER_EXPRESSION, message="line 1, column 4")
        consumer = AsyncPushConsumer("g", {"t": Sql("a >")}, _heed, c.namesrv)
        with pytest.raises(InvalidRequest, match="line 1, column 4"):
            await consumer.start()
        one(c).refusal = None
        await consumer.start()
        await one(c).deliver("t", batch(1))
        await until(lambda: one(c).settled_offsets["acknowledged"] == [0])
        await consumer.close()


async def test_a_batch_that_cannot_be_read_is_given_back_and_then_dead():
    async with stream_cluster() as c:
        one(c).settings_answer.backoff_policy.max_attempts = 3
        async with AsyncPushConsumer("g", {"t": "*"}, _heed, c.namesrv):
            await one(c).deliver("t", Batch(0, b"\xff", b"", 1, attempt=2))
            await until(lambda: one(c).settled_offsets["again_after"] == [0])
            await one(c).deliver("t", Batch(1, b"\xff", b"", 1, attempt=3))
            await until(lambda: one(c).settled_offsets["dead_letter"] == [1])
            await one(c).deliver("t", batch(1, 2))
            await until(lambda: one(c).settled_offsets["acknowledged"] == [2])


async def test_brokers_with_and_without_the_door_in_one_cluster():
    heard: list[bytes] = []

    async def listener(message: ReceivedMessage) -> None:
        heard.append(message.body)

    async with stream_cluster() as c, cluster() as other:
        [old] = other.brokers
        old.name = "broker-old"
        old.assign = lambda topic: [one(c).queue(topic, 0), old.queue(topic, 0)]
        one(c).assign = old.assign
        c.brokers.append(old)
        old.ready["t"].append(received("t", b"old", "h"))
        async with AsyncPushConsumer("g", {"t": "*"}, listener, c.namesrv):
            await one(c).deliver("t", batch(1))
            await until(lambda: sorted(heard) == [b"0", b"old"])
            await until(lambda: one(c).settled_offsets["acknowledged"] == [0] and old.acks)
            assert one(c).receives == []
        c.brokers.remove(old)


async def test_closing_settles_what_was_heard_and_leaves_the_rest():
    gate = asyncio.Event()

    async def listener(message: ReceivedMessage) -> None:
        await gate.wait()

    async with stream_cluster() as c:
        consumer = AsyncPushConsumer("g", {"t": "*"}, listener, c.namesrv, concurrency=2)
        await consumer.start()
        await one(c).deliver("t", batch(10))
        await until(lambda: one(c).lent)
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(consumer.close())
        await asyncio.sleep(0.05)
        gate.set()
        await closing
        assert sorted(one(c).settled_offsets["acknowledged"]) == [0, 1]
        assert len(one(c).goodbyes) == 1
