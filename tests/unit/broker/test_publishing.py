"""Stream.Publish: batches, their answers, and what is no batch."""

import asyncio
from typing import Any

import lz4.frame
import pytest
import zstandard

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.stream.v1 import stream_pb2
from tests.unit.broker.alone import MIB, Broker, message, simulated
from tests.unit.broker.streams import PREFIX, Publisher, headers, ids

Code = definition_pb2.Code
CODEC = stream_pb2.Codec


@simulated
async def test_a_batch_lies_in_one_queue_and_everybody_can_receive_it() -> None:
    broker = await Broker.started(queues=2)
    publisher = Publisher(broker)
    made = headers(
        b"one",
        b"two",
        b"three",
        tags=["red", "blue"],
        tag_numbers=[2, 0, 1],
        keys=["k1", "k2", "k3"],
        key_counts=[2, 0, 1],
        property_names=["a", "b"],
        property_values=["1", "2"],
        property_counts=[0, 2, 0],
        trace_contexts=["", "t", ""],
    )
    answer = await publisher.sent(made, b"onetwothree")
    assert answer.status.code == Code.OK
    (place,) = answer.places
    assert (place.offset, place.index) == (0, 0)
    received = await broker.receive()
    assert [each.body for each in received] == [b"one", b"two", b"three"]
    systems = [each.system_properties for each in received]
    assert [each.message_id for each in systems] == ids(made)
    assert [each.tag for each in systems] == ["blue", "", "red"]
    assert [list(each.keys) for each in systems] == [["k1", "k2"], [], ["k3"]]
    assert [each.user_properties for each in received] == [{}, {"a": "1", "b": "2"}, {}]
    assert [each.trace_context for each in systems] == ["", "t", ""]
    assert {(each.queue_id, each.born_host, each.message_type) for each in systems} == {
        (place.queue, "host", definition_pb2.NORMAL)
    }
    assert {each.born_timestamp.ToMilliseconds() for each in systems} == {1_600_000_000_123}
    assert [each.queue_offset for each in systems] == [0, 1, 2]
    assert all(each.body_digest.checksum for each in systems)
    assert await broker.ack(*received) == Code.OK


@simulated
async def test_the_first_response_grants_the_window() -> None:
    broker = await Broker.started()
    publisher = Publisher(broker)
    first = await publisher.answer()
    assert (first.number, first.status.code, first.window_bytes) == (0, Code.OK, 8 * MIB)
    await publisher.end()


@simulated
async def test_who_passes_the_window_is_refused_unless_alone() -> None:
    broker = await Broker.started(publish_window_bytes=MIB, segment_bytes=8 * MIB)
    publisher = Publisher(broker)
    large = bytes(MIB + 1)
    numbers = [publisher.publish(headers(large), large) for _ in range(2)]
    await publisher.answer()
    answers = {answer.number: answer.status.code for answer in [await publisher.answer() for _ in numbers]}
    assert answers == dict(zip(numbers, (Code.OK, Code.TOO_MANY_REQUESTS), strict=True))
    assert (await publisher.send(large)).status.code == Code.OK


@simulated
async def test_the_end_of_a_stream_waits_for_what_is_under_way() -> None:
    broker = await Broker.started()
    publisher = Publisher(broker)
    for _ in range(5):
        publisher.publish(headers(b"x"), b"x")
    await publisher.end()
    assert publisher.unread == 6


@simulated
async def test_a_batch_that_is_sent_again_is_stored_once_also_after_a_crash() -> None:
    broker = await Broker.started()
    publisher = Publisher(broker)
    made = headers(b"a", b"b")
    numbers = [publisher.publish(made, b"ab") for _ in range(2)]  # the second joins the first
    await publisher.answer()
    answers = [await publisher.answer() for _ in numbers]
    assert {answer.status.code for answer in answers} == {Code.OK}
    (first,), (second,) = (answer.places for answer in answers)
    assert first == second
    later = await publisher.sent(made, b"ab")
    assert list(later.places) == [first]
    await broker.crash()
    again = await Publisher(broker).sent(made, b"ab")
    assert list(again.places) == [first]
    # One with the same id and another number of messages is another batch.
    other = await Publisher(broker).sent(headers(b"a", first_message_id=made.first_message_id), b"a")
    assert other.places[0].offset == 2
    assert [each.body for each in await broker.receive()] == [b"a", b"b", b"a"]


@simulated
async def test_messages_of_a_batch_are_found_by_id_and_key_and_explained() -> None:
    broker = await Broker.started()
    made = headers(*[b"x"] * 300, keys=["needle"], key_counts=[0] * 299 + [1])
    await Publisher(broker).sent(made, b"x" * 300)
    for sealed in (False, True):
        if sealed:
            await _roll(broker)
        for index in (0, 255, 299):
            found = await broker.core.search.by_message_id(_topic(broker), ids(made)[index], 10)
            assert [each.offset for _queue, each in found] == [index]
        assert not await broker.core.search.by_message_id(_topic(broker), f"{PREFIX}FFFFFFFF", 10)
        (by_key,) = await broker.core.search.by_key(_topic(broker), "needle", 10)
        assert by_key[1].offset == 299


@simulated
async def test_batches_survive_a_restart_from_a_snapshot() -> None:
    broker = await Broker.started()
    await Publisher(broker).send(b"a", b"b")
    await _roll(broker)
    await broker.restart()
    received = await broker.receive()
    assert [each.body for each in received][:2] == [b"a", b"b"]


@pytest.mark.parametrize("codec", [CODEC.CODEC_ZSTD, CODEC.CODEC_LZ4])
@simulated
async def test_packed_bodies_are_unpacked_for_who_cannot(codec: stream_pb2.Codec) -> None:
    broker = await Broker.started()
    bodies = [b"a" * 1000, b"b" * 2000]
    packed = _packed(codec, b"".join(bodies))
    answer = await Publisher(broker).sent(headers(*bodies, codec=codec), packed)
    assert answer.status.code == Code.OK
    assert [each.body for each in await broker.receive()] == bodies


@pytest.mark.parametrize("codec", [CODEC.CODEC_ZSTD, CODEC.CODEC_LZ4])
@pytest.mark.parametrize("damage", ["cut", "other size", "garbage", "empty"])
@simulated
async def test_bodies_that_cannot_be_unpacked_are_refused(codec: stream_pb2.Codec, damage: str) -> None:
    broker = await Broker.started()
    body = b"body" * 100
    packed = {
        "cut": _packed(codec, body)[:-5],
        "other size": _packed(codec, body + b"more"),
        "garbage": b"garbage" * 10,
        "empty": b"",
    }[damage]
    answer = await Publisher(broker).sent(headers(body, codec=codec), packed)
    assert answer.status.code == Code.BAD_REQUEST
    assert not await broker.receive()


@pytest.mark.parametrize(
    ("made", "bodies", "code"),
    [
        (headers(), b"", Code.BAD_REQUEST),
        (b"\xff\xff", b"x", Code.BAD_REQUEST),
        (headers(b"x"), b"xy", Code.BAD_REQUEST),
        (headers(b"x", b""), b"x", Code.MESSAGE_BODY_EMPTY),
        (headers(bytes(4 * MIB + 1)), bytes(4 * MIB + 1), Code.MESSAGE_BODY_TOO_LARGE),
        (headers(*[b"x"] * 4097), b"x" * 4097, Code.PAYLOAD_TOO_LARGE),
        (headers(b"x", codec=9), b"x", Code.BAD_REQUEST),
        (headers(b"x", first_message_id=""), b"x", Code.ILLEGAL_MESSAGE_ID),
        (headers(b"x", first_message_id="no digits"), b"x", Code.ILLEGAL_MESSAGE_ID),
        (headers(b"x", first_message_id="ABC"), b"x", Code.ILLEGAL_MESSAGE_ID),
        (headers(b"x", b"y", first_message_id=PREFIX + "FFFFFFFF"), b"xy", Code.ILLEGAL_MESSAGE_ID),
        (headers(b"x", first_message_id=PREFIX + "0000000a"), b"x", Code.ILLEGAL_MESSAGE_ID),
        (headers(b"x", tags=["a|b"], tag_numbers=[1]), b"x", Code.ILLEGAL_MESSAGE_TAG),
        (headers(b"x", tags=["a"], tag_numbers=[2]), b"x", Code.BAD_REQUEST),
        (headers(b"x", tags=["a"]), b"x", Code.BAD_REQUEST),
        (headers(b"x", keys=[" "], key_counts=[1]), b"x", Code.ILLEGAL_MESSAGE_KEY),
        (headers(b"x", keys=["k"], key_counts=[2]), b"x", Code.BAD_REQUEST),
        (headers(b"x", keys=["k"]), b"x", Code.BAD_REQUEST),
        (
            headers(b"x", property_names=["__a"], property_values=["b"], property_counts=[1]),
            b"x",
            Code.ILLEGAL_MESSAGE_PROPERTY_KEY,
        ),
        (headers(b"x", property_names=["a"], property_counts=[1]), b"x", Code.BAD_REQUEST),
        (
            headers(b"x", property_names=["a"] * 129, property_values=["b"] * 129, property_counts=[129]),
            b"x",
            Code.MESSAGE_PROPERTIES_TOO_LARGE,
        ),
        (
            headers(b"x", property_names=["a"], property_values=["b" * 70_000], property_counts=[1]),
            b"x",
            Code.MESSAGE_PROPERTIES_TOO_LARGE,
        ),
        (headers(b"x", keys=["k" * 1000] * 70, key_counts=[70]), b"x", Code.MESSAGE_PROPERTIES_TOO_LARGE),
        (headers(b"x", trace_contexts=["a", "b"]), b"x", Code.BAD_REQUEST),
        (headers(b"x", message_group="g"), b"x", Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        (headers(b"x", delivery_ms=[1]), b"x", Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
    ],
)
@simulated
async def test_what_is_no_batch_is_refused_and_nothing_of_it_is_stored(made: Any, bodies: bytes, code: int) -> None:
    broker = await Broker.started(segment_bytes=16 * MIB)
    publisher = Publisher(broker)
    answer = await publisher.sent(made, bodies)
    assert Code.Name(answer.status.code) == Code.Name(code)
    assert answer.status.message
    assert (await publisher.send(b"good")).places[0].offset == 0


@simulated
async def test_requests_that_make_no_sense_are_refused() -> None:
    broker = await Broker.started()
    publisher = Publisher(broker)
    assert (await publisher.send(b"x", topic="missing")).status.code == Code.TOPIC_NOT_FOUND
    assert (await publisher.send(b"x", type_=definition_pb2.FIFO)).status.code == (
        Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE
    )
    assert (await publisher.send(b"x", type_=99)).status.code == Code.BAD_REQUEST
    publisher.publish(headers(b"x"), b"x", number=0)
    assert (await publisher.answer()).status.code == Code.BAD_REQUEST
    for _ in range(2):
        publisher.publish(headers(b"x"), b"x", number=77)
    codes = [(await publisher.answer()).status.code for _ in range(2)]
    assert sorted(codes) == [Code.OK, Code.BAD_REQUEST]
    assert (await Publisher(broker, client="").answer()).status.code == Code.CLIENT_ID_REQUIRED


@simulated
async def test_messages_of_all_types_come_in_batches() -> None:
    broker = await Broker.started()
    await broker.put_topic("fifo", 4, type=definition_pb2.FIFO)
    await broker.put_topic("later", 1, type=definition_pb2.DELAY)
    await broker.put_topic("levels", 3, type=definition_pb2.PRIORITY)
    await broker.put_topic("halves", 1, type=definition_pb2.TRANSACTION)
    publisher = Publisher(broker)
    fifo = await publisher.send(b"1", b"2", topic="fifo", type_=definition_pb2.FIFO, message_group="g")
    assert fifo.status.code == Code.OK
    assert [each.body for each in await broker.receive(topic="fifo")][:1] == [b"1"]
    level = await publisher.send(b"1", topic="levels", type_=definition_pb2.PRIORITY, priority=1)
    assert level.places[0].queue == 1
    due_ms = broker.now_ms() + 5000
    later = await publisher.send(
        b"1", b"2", topic="later", type_=definition_pb2.DELAY, delivery_ms=[due_ms, due_ms + 1]
    )
    assert len(later.recall_handles) == 2
    assert not await broker.receive(topic="later")
    await asyncio.sleep(6)
    assert len(await broker.receive(topic="later")) == 2
    half = await publisher.send(b"1", topic="halves", type_=definition_pb2.TRANSACTION)
    assert half.transaction_ids[0]
    assert not await broker.receive(topic="halves")


@pytest.mark.parametrize(
    ("type_", "fields", "code"),
    [
        (definition_pb2.FIFO, {}, Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        (definition_pb2.FIFO, {"message_group": " "}, Code.ILLEGAL_MESSAGE_GROUP),
        (definition_pb2.DELAY, {"delivery_ms": [1, 2]}, Code.BAD_REQUEST),
        (definition_pb2.DELAY, {"delivery_ms": [1 << 62]}, Code.ILLEGAL_DELIVERY_TIME),
        (definition_pb2.PRIORITY, {"priority": -1}, Code.BAD_REQUEST),
    ],
)
@simulated
async def test_batches_of_types_keep_their_rules(type_: int, fields: dict[str, Any], code: int) -> None:
    broker = await Broker.started()
    await broker.put_topic("typed", 1, type=type_)
    answer = await Publisher(broker).send(b"x", topic="typed", type_=type_, **fields)
    assert Code.Name(answer.status.code) == Code.Name(code)


@simulated
async def test_both_doors_fill_the_same_queues() -> None:
    broker = await Broker.started()
    publisher = Publisher(broker)
    await publisher.send(b"a", b"b")
    await broker.send(message(b"c"))
    await publisher.send(b"d")
    assert [each.body for each in await broker.receive()] == [b"a", b"b", b"c", b"d"]


def _packed(codec: int, data: bytes) -> bytes:
    return zstandard.compress(data) if codec == CODEC.CODEC_ZSTD else lz4.frame.compress(data)


def _topic(broker: Broker) -> Any:
    return broker.core.state.topics_by_id[1]


async def _roll(broker: Broker) -> None:
    """Until the first segment is sealed."""
    for _ in range(12):
        await broker.send(message(bytes(100_000)))
