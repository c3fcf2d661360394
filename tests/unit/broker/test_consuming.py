"""Stream.Consume: credits, deliveries in one piece or single, and what becomes of them."""

import asyncio
from typing import Any

import pytest
import zstandard

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou.protocol.kourou.stream.v1 import stream_pb2
from tests.unit.broker.alone import Broker, message, simulated
from tests.unit.broker.streams import Consumer, Publisher, bodies, headers, offsets, settlement

Code = definition_pb2.Code
ACKNOWLEDGED = stream_pb2.Acknowledged()


def _again(seconds: float) -> Any:
    from kourou.protocol.google.protobuf.duration_pb2 import Duration

    after = Duration()
    after.FromMilliseconds(int(seconds * 1000))
    return after


async def _with_batch(*sent: bytes, **fields: Any) -> Broker:
    broker = await Broker.started(**fields)
    await Publisher(broker).send(*sent)
    return broker


@simulated
async def test_a_batch_comes_as_it_was_sent_and_goes_with_one_settlement() -> None:
    broker = await Broker.started()
    made = headers(b"a", b"b", b"c")
    await Publisher(broker).sent(made, b"abc")
    consumer = Consumer(broker)
    (delivery,) = await consumer.receive()
    assert (delivery.headers, delivery.bodies) == (made.SerializeToString(), b"abc")
    assert (delivery.base_offset, list(delivery.indexes), delivery.attempt) == (0, [], 1)
    assert 0 <= broker.now_ms() - delivery.stored_ms < 1000
    assert await consumer.ack(delivery) == Code.OK
    await broker.restart()
    assert not await Consumer(broker).receive(wait_s=30)


@simulated
async def test_several_groups_have_the_same_batch() -> None:
    broker = await _with_batch(b"a", b"b")
    await broker.put_group("others")
    for group in ("team", "others"):
        assert bodies(*await Consumer(broker, group, group=group).receive()) == [b"a", b"b"]


@simulated
async def test_a_credit_waits_for_the_first_message_and_no_longer() -> None:
    broker = await Broker.started()
    consumer = Consumer(broker)
    consumer.grant(wait_s=5)
    await asyncio.sleep(4.9)
    assert not consumer.unread
    assert await consumer.deliveries() == []
    consumer.grant()
    await asyncio.sleep(3600)
    assert not consumer.unread
    await Publisher(broker).send(b"late")
    assert bodies(*await consumer.deliveries()) == [b"late"]


@simulated
async def test_credits_are_served_one_after_the_other_and_no_further() -> None:
    broker = await Broker.started()
    publisher, consumer = Publisher(broker), Consumer(broker)
    consumer.grant(2)
    consumer.grant(1)
    for number in range(6):
        await publisher.send(b"%d" % number)
    assert bodies(*await consumer.deliveries()) == [b"0"]  # what there was: a credit never waits for more
    assert bodies(*await consumer.deliveries()) == [b"1"]
    await asyncio.sleep(10)
    assert not consumer.unread
    assert bodies(*await consumer.receive(3)) == [b"2", b"3", b"4"]
    assert bodies(*await consumer.receive(3)) == [b"5"]


@simulated
async def test_a_small_credit_cuts_a_batch() -> None:
    broker = await _with_batch(*(b"%d" % number for number in range(10)))
    consumer = Consumer(broker)
    (first,) = await consumer.receive(6)
    assert (first.bodies, bodies(first)) == (b"012345", [b"0", b"1", b"2", b"3", b"4", b"5"])
    (second,) = await consumer.receive(3)
    assert (second.base_offset, second.bodies, offsets(second)) == (6, b"678", [6, 7, 8])
    assert await consumer.ack(first, second) == Code.OK
    (third,) = await consumer.receive(3)
    assert offsets(third) == [9]


@simulated
async def test_a_credit_in_bytes_is_kept_but_for_one_batch() -> None:
    broker = await Broker.started()
    for _ in range(3):
        await Publisher(broker).send(bytes(1000))
    consumer = Consumer(broker)
    consumer.grant(100, 0, bytes=1500)
    assert len(bodies(*await consumer.deliveries())) == 2


@simulated
async def test_messages_of_the_other_door_come_one_by_one() -> None:
    broker = await Broker.started()
    sent = message(b"body", "id", tag="red", keys=["k"])
    sent.user_properties["name"] = "value"
    await broker.send(sent)
    await Publisher(broker).send(b"in a batch")
    consumer = Consumer(broker)
    (single,) = await consumer.receive()
    (batch,) = await consumer.receive()
    received = definition_pb2.Message.FromString(single.messages[0])
    assert (received.body, received.user_properties) == (b"body", {"name": "value"})
    assert (received.system_properties.message_id, received.system_properties.tag) == ("id", "red")
    assert list(single.offsets) == [0]
    assert 0 <= broker.now_ms() - single.messages_stored_ms[0] < 1000
    assert bodies(batch) == [b"in a batch"]
    assert await consumer.ack(single, batch) == Code.OK
    assert not await broker.receive(wait_s=100)


@simulated
async def test_tags_are_filtered_also_in_batches() -> None:
    broker = await Broker.started()
    await Publisher(broker).send(b"r", b"b", b"n", tags=["red", "blue"], tag_numbers=[1, 2, 0])
    consumer = Consumer(broker, tags="red || green")
    assert bodies(*await consumer.receive()) == [b"r"]
    assert not await consumer.receive(wait_s=1)
    assert (await broker.offset()).offset == 0


@simulated
async def test_what_is_packed_comes_packed_only_to_who_can_unpack_it() -> None:
    broker = await Broker.started()
    await broker.put_group("others")
    packed = zstandard.compress(b"ab" * 100)
    await Publisher(broker).sent(headers(b"ab" * 50, b"ab" * 50, codec=stream_pb2.CODEC_ZSTD), packed)
    (whole,) = await Consumer(broker, codecs=[stream_pb2.CODEC_ZSTD]).receive()
    assert whole.bodies == packed
    (unpacked,) = await Consumer(broker, "other", group="others", codecs=[stream_pb2.CODEC_LZ4]).receive()
    assert unpacked.bodies == b"ab" * 100
    assert bodies(unpacked) == [b"ab" * 50] * 2


@simulated
async def test_of_what_is_packed_most_comes_as_it_is_and_a_rest_unpacked() -> None:
    broker = await Broker.started()
    packed = zstandard.compress(b"abcdef")
    await Publisher(broker).sent(headers(*(b"%c" % each for each in b"abcdef"), codec=stream_pb2.CODEC_ZSTD), packed)
    consumer = Consumer(broker, codecs=[stream_pb2.CODEC_ZSTD])
    (most,) = await consumer.receive(4)
    assert (most.bodies, list(most.indexes)) == (packed, [0, 1, 2, 3])
    (rest,) = await consumer.receive(4)
    assert (rest.bodies, offsets(rest)) == (b"ef", [4, 5])


@simulated
async def test_a_large_part_comes_in_several_deliveries_of_one_lease() -> None:
    broker = await Broker.started()
    large = [bytes(400_000)] * 6
    made = headers(*large, codec=stream_pb2.CODEC_ZSTD)
    await Publisher(broker).sent(made, zstandard.compress(b"".join(large)))
    some = await Consumer(broker).receive(5)
    assert [offsets(each) for each in some] == [[0, 1], [2, 3], [4]]
    assert len({each.lease.number for each in some}) == 1


@simulated
async def test_some_of_a_delivery_are_settled_each_in_its_own_way() -> None:
    broker = await _with_batch(b"a", b"b", b"c", b"d", group={"max_attempts": 5})
    consumer = Consumer(broker)
    (delivery,) = await consumer.receive()
    settled = await consumer.settle(
        settlement(delivery, [0, 2], acknowledged=ACKNOWLEDGED),
        settlement(delivery, [1], again_after=_again(5)),
        settlement(delivery, [3], dead_letter=stream_pb2.DeadLetter()),
    )
    assert (settled.status.code, len(settled.leases), list(settled.results)) == (Code.OK, 1, [])
    assert [each.body for each in await broker.dead_letters()] == [b"d"]
    assert not await consumer.receive(wait_s=4.9)
    (again,) = await consumer.receive(wait_s=0.2)
    assert (bodies(again), again.attempt) == ([b"b"], 2)
    assert again.lease != settled.leases[0]
    assert await consumer.ack(again) == Code.OK
    assert (await broker.offset()).offset == 4


@simulated
async def test_a_lease_that_was_changed_is_settled_by_its_new_name() -> None:
    broker = await _with_batch(b"a")
    consumer = Consumer(broker, invisible_s=10)
    (delivery,) = await consumer.receive()
    settled = await consumer.settle(settlement(delivery, again_after=_again(60)))
    assert await consumer.ack(delivery) == Code.INVALID_RECEIPT_HANDLE
    delivery.lease.CopyFrom(settled.leases[0])
    await asyncio.sleep(50)
    assert await consumer.ack(delivery) == Code.OK


@simulated
async def test_an_explicit_time_runs_out_and_a_kept_message_does_not_while_its_client_lives() -> None:
    broker = await _with_batch(b"a", b"b")
    await broker.put_group("keepers")
    consumer, keeper = Consumer(broker, invisible_s=5), Consumer(broker, "keeper", group="keepers")
    (first,) = await consumer.receive()
    (kept,) = await keeper.receive()
    (second,) = await consumer.receive(wait_s=6)
    assert (second.attempt, offsets(second)) == (2, [0, 1])
    assert await consumer.ack(first) == Code.INVALID_RECEIPT_HANDLE
    for _ in range(10):  # signs of life
        assert not await keeper.receive(wait_s=30)
    assert await keeper.ack(kept) == Code.OK


@simulated
async def test_settling_what_is_not_held_says_so_and_settles_the_rest() -> None:
    broker = await _with_batch(b"a", b"b")
    consumer = Consumer(broker)
    (delivery,) = await consumer.receive()
    assert (await consumer.settle(settlement(delivery, [0], acknowledged=ACKNOWLEDGED))).status.code == Code.OK
    settled = await consumer.settle(
        settlement(delivery, acknowledged=ACKNOWLEDGED), settlement(delivery, acknowledged=ACKNOWLEDGED)
    )
    assert settled.status.code == Code.INVALID_RECEIPT_HANDLE  # both name the first message
    assert (await broker.offset()).offset == 2
    for wrong in (
        settlement(delivery),
        stream_pb2.Settlement(lease=delivery.lease, acknowledged=ACKNOWLEDGED),
        stream_pb2.Settlement(
            lease=delivery.lease,
            ranges=[stream_pb2.OffsetRange(first=0, count=1 << 31)],
            acknowledged=ACKNOWLEDGED,
        ),
    ):
        assert (await consumer.settle(wrong)).status.code != Code.OK
    assert (await consumer.settle()).status.code == Code.BAD_REQUEST


@pytest.mark.parametrize("keeps", [False, True])
@simulated
async def test_after_a_reconnect_what_did_not_arrive_comes_again(keeps: bool) -> None:
    broker = await Broker.started()
    await Publisher(broker).send(b"arrived")
    consumer = Consumer(broker)
    (arrived,) = await consumer.receive()
    await Publisher(broker).send(b"lost")
    await consumer.receive()
    consumer.call.cancel()
    again = Consumer(broker, held=[arrived.lease] if keeps else [])
    got = bodies(*await again.receive(wait_s=1)) + bodies(*await again.receive(wait_s=1))
    assert sorted(got) == ([b"lost"] if keeps else [b"arrived", b"lost"])
    assert await again.ack(arrived) == (Code.OK if keeps else Code.INVALID_RECEIPT_HANDLE)


@simulated
async def test_who_lives_and_does_not_come_back_gives_back_what_it_had() -> None:
    broker = await _with_batch(b"a", group={"assignment": record_pb2.ASSIGNMENT_SHARED})
    consumer = Consumer(broker)
    await consumer.receive()
    consumer.call.cancel()
    other = Consumer(broker, "other")
    other.grant(wait_s=60)
    await asyncio.sleep(1)
    assert not other.unread
    assert bodies(*await other.deliveries()) == [b"a"]


@simulated
async def test_a_delivery_on_its_way_when_the_client_goes_comes_again() -> None:
    broker = await Broker.started(group={"assignment": record_pb2.ASSIGNMENT_SHARED})
    consumer = Consumer(broker)
    consumer.grant()
    await asyncio.sleep(1)
    consumer.call.cancel()
    await Publisher(broker).send(b"a")
    assert bodies(*await Consumer(broker, "other").receive(wait_s=1)) == [b"a"]


@simulated
async def test_the_newest_stream_of_a_client_counts() -> None:
    broker = await Broker.started()
    first = Consumer(broker)
    first.grant()
    await asyncio.sleep(1)
    second = Consumer(broker)
    second.grant()
    await first.call.ended
    await Publisher(broker).send(b"a")
    assert bodies(*await second.deliveries()) == [b"a"]


@simulated
async def test_members_of_an_exclusive_group_have_their_own_queues_and_follow_changes() -> None:
    broker = await Broker.started(queues=4)
    publisher = Publisher(broker)
    one, two = Consumer(broker, "one"), Consumer(broker, "two")
    for consumer in (one, two):
        consumer.grant(wait_s=1)
        assert await consumer.deliveries() == []
    for _ in range(8):
        await publisher.send(b"x")
    first, second = await one.receive(wait_s=1), await two.receive(wait_s=1)
    queues = [{delivery.lease.queue for delivery in got} for got in (first, second)]
    assert [len(each) for each in queues] == [2, 2]
    assert not queues[0] & queues[1]
    assert await one.ack(*first) == await two.ack(*second) == Code.OK
    # One leaves for good: its queues go to the other, whose credit is waiting already.
    one.grant()
    await two.end()
    broker.core.clients.leave("two")
    for _ in range(8):
        await publisher.send(b"y")
    got = await one.deliveries()
    while len(bodies(*got)) < 8:
        got += await one.receive(wait_s=1)
    assert {delivery.lease.queue for delivery in got} == {0, 1, 2, 3}


@simulated
async def test_a_group_that_keeps_order_gets_one_of_a_message_group_at_a_time() -> None:
    broker = await Broker.started(group={"order": record_pb2.ORDER_FIFO})
    await broker.put_topic("fifo", 1, type=definition_pb2.FIFO)
    await Publisher(broker).send(b"1", b"2", topic="fifo", type_=definition_pb2.FIFO, message_group="g")
    consumer = Consumer(broker, topic="fifo")
    (first,) = await consumer.receive()
    assert bodies(first) == [b"1"]
    assert not await consumer.receive(wait_s=5)
    assert await consumer.ack(first) == Code.OK
    assert bodies(*await consumer.receive(wait_s=1)) == [b"2"]


@simulated
async def test_past_the_last_attempt_messages_of_a_batch_become_dead_letters() -> None:
    broker = await _with_batch(b"a", b"b", group={"max_attempts": 2})
    consumer = Consumer(broker, invisible_s=1)
    for attempt in (1, 2):
        got = await consumer.receive(wait_s=2)
        assert {delivery.attempt for delivery in got} == {attempt}
    assert not await consumer.receive(wait_s=5)
    assert sorted(each.body for each in await broker.dead_letters()) == [b"a", b"b"]


@simulated
async def test_retention_carries_what_is_lent_of_a_batch() -> None:
    broker = await _with_batch(b"keep", b"done", retention_hours=0.001, retention_interval_s=1)
    consumer = Consumer(broker)
    (delivery,) = await consumer.receive()
    assert (await consumer.settle(settlement(delivery, [1], acknowledged=ACKNOWLEDGED))).status.code == Code.OK
    for _ in range(30):
        await broker.send(message(bytes(100_000)))
        await asyncio.sleep(1)
    assert broker.core.log.first_position > 0
    consumer.call.cancel()
    (again,) = await Consumer(broker).receive(1, wait_s=1)
    assert bodies(again) == [b"keep"]


@simulated
async def test_what_cannot_be_consumed_ends_the_stream_with_the_reason() -> None:
    broker = await Broker.started()
    assert await _refusal(Consumer(broker, topic="missing")) == Code.TOPIC_NOT_FOUND
    assert await _refusal(Consumer(broker, tags="a |")) == Code.ILLEGAL_FILTER_EXPRESSION
    assert await _refusal(Consumer(broker, invisible_s=-1)) == Code.ILLEGAL_INVISIBLE_TIME
    assert await _refusal(Consumer(broker, client="")) == Code.CLIENT_ID_REQUIRED
    for credit in (0, 1 << 20):
        consumer = Consumer(broker)
        consumer.grant(credit)
        assert await _refusal(consumer) == Code.BAD_REQUEST
    consumer = Consumer(broker)
    for _ in range(70):
        consumer.grant()
    assert await _refusal(consumer) == Code.TOO_MANY_REQUESTS
    consumer = Consumer(broker)
    consumer.grant(wait_s=-1)
    assert await _refusal(consumer) == Code.ILLEGAL_POLLING_TIME
    unopened = Consumer(broker)
    unopened.put(stream_pb2.ConsumeRequest(open=stream_pb2.Open()))
    assert await _refusal(unopened) == Code.BAD_REQUEST


@simulated
async def test_a_topic_that_is_deleted_ends_its_streams() -> None:
    broker = await Broker.started()
    consumer = Consumer(broker)
    consumer.grant()
    await asyncio.sleep(1)
    await broker.put_topic("orders", 1, version=2, deleted=True)
    assert await _refusal(consumer) == Code.TOPIC_NOT_FOUND


async def _refusal(consumer: Consumer) -> int:
    answer = await consumer.answer()
    assert answer.WhichOneof("answer") == "refused", answer
    await consumer.call.ended
    return answer.refused.code
