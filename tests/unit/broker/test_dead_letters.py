"""Dead letters are listed, and given back to their group alone."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.state.resent import Resent
from tests.unit.broker.alone import Broker, attempt, handle, ids, message, resource, simulated, until
from tests.unit.broker.lite import lite, lite_broker, subscribe

Code = definition_pb2.Code


async def list_letters(broker: Broker, group: str = "team", **fields: Any) -> broker_pb2.ListDeadLettersResponse:
    request = broker_pb2.ListDeadLettersRequest(group=resource(group), **fields)
    return await broker.doors.call(broker_rpc.LIST_DEAD_LETTERS, request, {})


async def listed(broker: Broker, **fields: Any) -> list[str]:
    return [letter.message.system_properties.message_id for letter in (await list_letters(broker, **fields)).letters]


async def resend(broker: Broker, *offsets: int, group: str = "team") -> broker_pb2.ResendDeadLettersResponse:
    request = broker_pb2.ResendDeadLettersRequest(group=resource(group), offsets=offsets)
    return await broker.doors.call(broker_rpc.RESEND_DEAD_LETTERS, request, {})


async def codes(broker: Broker, *offsets: int) -> list[int]:
    return [result.code for result in (await resend(broker, *offsets)).results]


async def with_letters(*letters: str, queues: int = 1, **settings: Any) -> Broker:
    """All of them were tried once, by a group that tries once."""
    broker = await Broker.started(queues=queues, group={"max_attempts": 1}, **settings)
    for id_ in letters:
        await broker.send(message(id_.encode(), id_, keys=["k"]))
    await bury(broker, len(letters))
    return broker


async def bury(broker: Broker, count: int) -> None:
    """So many that can be had come and are not acknowledged."""
    before = len(await broker.dead_letters()) if count else 0
    received = 0
    while received < count:
        received += len(await broker.receive(invisible_s=1, wait_s=5))
    await asyncio.sleep(1.1)
    while len(await broker.dead_letters()) < before + count:
        await broker.receive(wait_s=1)


@simulated
async def test_they_are_listed_with_where_they_came_from() -> None:
    broker = await with_letters("a", "b", queues=3)
    answer = await list_letters(broker)
    assert not answer.HasField("next_offset")
    queues = {
        message.system_properties.queue_id for queue in range(3) for message in (await broker.pull(queue=queue))[0]
    }
    assert {letter.origin_queue for letter in answer.letters} == queues
    for offset, letter in enumerate(answer.letters):
        assert (letter.offset, letter.origin_topic.name, letter.origin_offset) == (offset, "orders", 0)
        assert letter.message.body == letter.message.system_properties.message_id.encode()
        assert not letter.message.system_properties.receipt_handle


@simulated
async def test_a_long_list_comes_in_parts() -> None:
    broker = await with_letters(*"abcde")
    await resend(broker, 2)
    first = await list_letters(broker, limit=2)
    assert [letter.offset for letter in first.letters] == [0, 1]
    second = await list_letters(broker, limit=2, from_offset=first.next_offset)
    assert ([letter.offset for letter in second.letters], second.HasField("next_offset")) == ([3, 4], False)
    assert await listed(broker, from_offset=5) == []


@simulated
async def test_resent_it_comes_to_its_group_only_as_if_it_were_new() -> None:
    broker = await with_letters("a", "b")
    await broker.put_group("others")
    assert await broker.ack(*await broker.receive(group="others"), group="others") == Code.OK
    assert await codes(broker, 1) == [Code.OK]
    assert await listed(broker) == ["a"]
    [again] = await broker.receive(wait_s=5)
    assert (again.body, attempt(again), again.user_properties) == (b"b", 1, {})
    assert (again.topic.name, again.system_properties.queue_offset) == ("orders", 1)
    assert not again.system_properties.HasField("dead_letter_queue")
    assert await broker.ack(again) == Code.OK
    assert await broker.receive(group="others") == []
    assert await broker.receive(wait_s=2) == []


@simulated
async def test_a_poll_that_waits_gets_it_at_once() -> None:
    broker = await with_letters("a")
    waiting = asyncio.ensure_future(broker.receive(wait_s=20))
    await asyncio.sleep(1)
    assert await codes(broker, 0) == [Code.OK]
    async with asyncio.timeout(0.5):
        assert ids(await waiting) == ["a"]


@simulated
async def test_what_fails_again_is_a_new_letter() -> None:
    broker = await with_letters("a")
    for number in range(1, 4):
        assert await codes(broker, number - 1) == [Code.OK]
        assert await listed(broker) == []
        await bury(broker, 1)
        [letter] = (await list_letters(broker)).letters
        assert (letter.offset, letter.origin_offset, letter.message.body) == (number, 0, b"a")


@pytest.mark.parametrize("how", ["restart", "crash"])
@simulated
async def test_a_start_keeps_what_was_resent(how: str) -> None:
    broker = await with_letters("a", "b", "c")
    await resend(broker, 0, 2)
    await getattr(broker, how)()
    assert await listed(broker) == ["b"]
    received = await broker.receive(wait_s=1)
    assert sorted(ids(received)) == ["a", "c"]
    assert [attempt(message) for message in received] == [1, 1]
    await broker.ack(*received)
    await getattr(broker, how)()
    assert await broker.receive(wait_s=1) == []
    assert await codes(broker, 0, 1) == [Code.PRECONDITION_FAILED, Code.OK]


KIB = 1024
SHORT: dict[str, Any] = {
    "segment_bytes": 16 * KIB,
    "snapshot_every_bytes": 16 * KIB,
    "retention_interval_s": 1_000_000,
    "retention_hours": 0,
    "retention_bytes": 64 * KIB,
}
"""Old segments go when somebody says so."""


async def fill(broker: Broker, kib: int) -> None:
    for _ in range(kib):
        await broker.send(message(bytes(KIB), topic="filler"))


async def drop(broker: Broker) -> None:
    await broker.shard.process.start(broker.core.check_retention())


@simulated
async def test_a_snapshot_has_what_was_resent() -> None:
    broker = await with_letters(*"abcd", **{**SHORT, "retention_bytes": 0})
    await broker.put_topic("filler")
    await resend(broker, 0, 2)
    for _ in range(4):
        await fill(broker, 20)
        await drop(broker)
    assert broker.core.snapshots.droppable > 0
    await broker.crash()
    assert await listed(broker) == ["b", "d"]
    assert sorted(ids(await broker.receive(wait_s=1))) == ["a", "c"]


async def with_letter_of_a_gone_message() -> Broker:
    """The group held the message for long, so that its segment went; now the copy made then is gone, too."""
    broker = await Broker.started(group={"max_attempts": 1}, **SHORT)
    await broker.put_topic("filler")
    await broker.send(message(b"x", "a", keys=["k"]), message(b"y", "b"))
    held = await broker.receive(invisible_s=3600)
    queue = next(topic for topic in broker.core.state.topics.values() if topic.name.name == "orders").queues[0]
    while not queue.first_offset:
        await fill(broker, 20)
        await drop(broker)
    await fill(broker, 40)
    assert await broker.forward(held[0].system_properties.receipt_handle) == Code.OK
    await broker.ack(held[1])
    while queue.carried:
        await fill(broker, 10)
        await drop(broker)
    assert await listed(broker) == ["a"]
    return broker


@pytest.mark.parametrize("how", ["", "restart", "crash"])
@simulated
async def test_a_letter_stands_in_for_a_message_whose_segment_is_gone(how: str) -> None:
    broker = await with_letter_of_a_gone_message()
    assert await codes(broker, 0) == [Code.OK]
    if how:
        await getattr(broker, how)()
    [again] = await broker.receive(wait_s=5)
    assert (again.body, attempt(again), again.user_properties, again.topic.name) == (b"x", 1, {}, "orders")
    assert (again.system_properties.queue_offset, list(again.system_properties.keys)) == (0, ["k"])
    assert not again.system_properties.HasField("dead_letter_queue")
    for _ in range(8):  # nor does retention take it now
        await fill(broker, 20)
        await drop(broker)
    assert await broker.ack(again) == Code.OK
    assert await broker.receive(wait_s=1) == []


@simulated
async def test_letters_that_expired_are_gone() -> None:
    broker = await with_letters("a", "b", **SHORT)
    await broker.put_topic("filler")
    await resend(broker, 0)
    for message_ in await broker.receive(wait_s=5):
        await broker.ack(message_)
    while await listed(broker):
        await fill(broker, 20)
        await drop(broker)
    assert await codes(broker, 0, 1) == [Code.MESSAGE_NOT_FOUND] * 2


@simulated
async def test_each_letter_says_what_stands_in_its_way() -> None:
    broker = await with_letters("a", "b")
    await broker.put_topic("others")
    await broker.send(message(id_="c", topic="others"))
    await broker.receive(topic="others", invisible_s=1)
    await asyncio.sleep(1.1)
    await broker.receive(topic="others")
    await broker.send(message(id_="by hand", topic="%DLQ%team"))
    await broker.put_topic("others", version=2, deleted=True)
    await broker.put_topic("others", version=3)
    await broker.send(message(id_="another one", topic="others"))
    answer = await resend(broker, 0, 1, 2, 3, 99, -1, 0)
    assert [result.code for result in answer.results] == [
        Code.OK,
        Code.OK,
        Code.TOPIC_NOT_FOUND,
        Code.PRECONDITION_FAILED,
        Code.MESSAGE_NOT_FOUND,
        Code.MESSAGE_NOT_FOUND,
        Code.PRECONDITION_FAILED,
    ]
    assert answer.results[2].message == "topic others, which the letter came from, was deleted"
    assert "sent by hand" in answer.results[3].message
    assert "resent before" in answer.results[6].message
    assert answer.status.code == Code.MULTIPLE_RESULTS
    assert await listed(broker) == ["c", "by hand"]
    assert [(letter.origin_topic.name, letter.origin_offset) for letter in (await list_letters(broker)).letters] == [
        ("others", 0),
        ("", -1),
    ]


@simulated
async def test_bad_requests() -> None:
    broker = await Broker.started()
    assert (await list_letters(broker)).status.code == Code.OK
    assert await codes(broker, 0) == [Code.MESSAGE_NOT_FOUND]
    assert (await list_letters(broker, "nobody")).status.code == Code.CONSUMER_GROUP_NOT_FOUND
    assert (await resend(broker, 0, group="nobody")).status.code == Code.CONSUMER_GROUP_NOT_FOUND
    assert not any(group.name == "nobody" for group in broker.core.state.groups)
    for limit in (-1, 257):
        assert (await list_letters(broker, limit=limit)).status.code == Code.BAD_REQUEST
    assert (await resend(broker)).status.code == Code.BAD_REQUEST
    assert (await resend(broker, *range(257))).status.code == Code.BAD_REQUEST


@simulated
async def test_properties_that_are_no_origin() -> None:
    broker = await with_letters("a")
    for values in (
        ("1", "0", "77"),
        ("1", "0", "-1"),
        ("1", "0", "x"),
        ("99", "0", "0"),
        ("1", "7", "0"),
        ("9" * 30, "0", "0"),
    ):
        forged = message(topic="%DLQ%team")
        for name, value in zip(("TOPIC_ID", "QUEUE_ID", "QUEUE_OFFSET"), values, strict=True):
            forged.user_properties[f"DLQ_ORIGIN_{name}"] = value
        await broker.send(forged)
    answer = await resend(broker, *range(1, 7))
    refused = {Code.TOPIC_NOT_FOUND, Code.PRECONDITION_FAILED}
    assert {result.code for result in answer.results} == refused


@simulated
async def test_a_group_that_was_made_anew_gets_its_old_letters_and_starts_where_it_says() -> None:
    broker = await with_letters("a", "b")
    await broker.send(message(id_="c"))
    await broker.put_group("team", version=2, deleted=True)
    await broker.put_group("team", version=3, start=record_pb2.START_LAST)
    assert await listed(broker) == ["a", "b"]
    assert await codes(broker, 1) == [Code.OK]
    assert ids(await broker.receive(wait_s=1)) == ["b"]
    await broker.send(message(id_="d"))
    assert ids(await broker.receive(wait_s=1)) == ["d"]


@simulated
async def test_after_an_offset_was_set_back_it_comes_once() -> None:
    broker = await with_letters("a", "b")
    assert await broker.set_offset(0) == Code.OK
    assert await codes(broker, 0, 1) == [Code.OK, Code.OK]
    assert ids(await broker.receive(wait_s=1)) == ["a", "b"]
    assert await broker.receive(wait_s=1) == []


async def ordered_broker() -> Broker:
    broker = Broker()
    await broker.shard.start()
    await broker.put_topic("orders", 1, type=definition_pb2.FIFO)
    await broker.put_group("team", max_attempts=1, order=record_pb2.ORDER_FIFO)
    return broker


def of_group(id_: str) -> definition_pb2.Message:
    return message(id_=id_, message_group=id_[0], message_type=definition_pb2.FIFO)


@pytest.mark.parametrize("how", ["", "crash"])
@simulated
async def test_in_order_it_waits_until_its_message_group_is_free(how: str) -> None:
    broker = await ordered_broker()
    await broker.send(of_group("a1"))
    [a1] = await broker.receive(invisible_s=60)
    assert await broker.forward(a1.system_properties.receipt_handle) == Code.OK
    for id_ in ("a2", "a3"):
        await broker.send(of_group(id_))
    [a2] = await broker.receive(invisible_s=60)
    assert await codes(broker, 0) == [Code.OK]
    if how:
        await broker.crash()
    await broker.send(of_group("b1"))
    assert ids(await broker.receive(wait_s=1)) == ["b1"], "a2 is with its consumer"
    assert await broker.ack(a2) == Code.OK
    [again] = await broker.receive(wait_s=1)
    assert (ids([again]), attempt(again), again.system_properties.message_group) == (["a1"], 1, "a")
    assert await broker.receive(wait_s=1) == []
    await broker.ack(again)
    assert ids(await broker.receive(wait_s=1)) == ["a3"]


@simulated
async def test_in_order_what_was_lent_first_is_delivered_again_first() -> None:
    broker = await ordered_broker()
    await broker.put_group("team", version=2, max_attempts=3, order=record_pb2.ORDER_FIFO)
    await broker.send(of_group("a1"))
    [a1] = await broker.receive(invisible_s=60)
    await broker.forward(a1.system_properties.receipt_handle)
    await broker.send(of_group("a2"))
    await broker.receive(invisible_s=2)
    assert await codes(broker, 0) == [Code.OK]
    [a2] = await broker.receive(wait_s=5)
    assert (ids([a2]), attempt(a2)) == (["a2"], 2)
    await broker.ack(a2)
    assert ids(await broker.receive(wait_s=1)) == ["a1"]


@simulated
async def test_a_resent_message_waits_for_no_member() -> None:
    """It can be had by whoever comes first, also when nobody was there while it was resent."""
    broker = await with_letters("a")
    await broker.restart()
    assert await codes(broker, 0) == [Code.OK]
    await broker.restart()
    broker.connect("late")
    await until(lambda: broker.members() == ["late"])
    assert ids(await broker.receive(client="late", queue=0, auto_renew=True, wait_s=1)) == ["a"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=40))
def test_resent_offsets_against_a_set(steps: list[tuple[bool, int]]) -> None:
    resent, model, first = Resent(), set[int](), 0
    for trims, offset in steps:
        if trims:
            first = max(first, offset)
            resent.trim(offset)
        else:
            model.add(offset)
            resent.add(offset)
        saved = Resent(resent.below, sorted(resent.offsets))
        for each in range(first, 15):
            assert (each in resent) == (each in model) == (each in saved)
        assert resent.below not in resent


@simulated
async def test_a_letter_of_a_lite_topic_that_is_gone_stays_a_letter() -> None:
    broker = await lite_broker(topic={"lite_expiration_minutes": 15}, group={"max_attempts": 1})
    assert (await broker.send(lite("a1"))).status.code == Code.OK
    await subscribe(broker, "consumer", "a b")
    (first,) = await broker.receive()
    await broker.forward(handle(first))
    await asyncio.sleep(16 * 60)
    await broker.core.lite_store.sweep()
    assert await codes(broker, 0) == [Code.PRECONDITION_FAILED]  # nobody would find it where it came from
    assert (await broker.send(lite("b1"))).status.code == Code.OK  # takes the queue over
    await subscribe(broker, "consumer", "a b")
    assert await codes(broker, 0) == [Code.PRECONDITION_FAILED]
    assert ids(await broker.receive()) == ["b1"]
    assert await listed(broker) == ["a1"]
    assert (await broker.send(lite("a2"))).status.code == Code.OK  # the lite topic is there again, in another queue
    assert await codes(broker, 0) == [Code.PRECONDITION_FAILED]


@simulated
async def test_a_letter_of_a_lite_topic_comes_again() -> None:
    broker = await lite_broker()
    assert (await broker.send(lite("a1"))).status.code == Code.OK
    await subscribe(broker, "consumer", "a")
    (first,) = await broker.receive()
    await broker.forward(handle(first))
    assert await codes(broker, 0) == [Code.OK]
    assert ids(await broker.receive(wait_s=2)) == ["a1"]
