"""Lending, redelivery, dead letters and what clients may do with a lease."""

import asyncio
from typing import Any

import pytest
import structlog

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations.subscription import Subscription
from kourou_service.logs import current_call
from tests.simulation.time import simulate
from tests.unit.broker.alone import Broker, Message, attempt, handle, ids, message, simulated, until

Code = definition_pb2.Code
NUMBERS = [f"m{number}" for number in range(10)]


async def _broker(*sent: str, **fields: Any) -> Broker:
    broker = await Broker.started(**fields)
    if sent:
        await broker.send_ids(*sent)
    return broker


@simulated
async def test_a_message_comes_as_it_was_sent_with_the_delivery_s_fields() -> None:
    broker = await Broker.started()
    sent = message(b"body", "id", tag="red", keys=["k1", "k2"], trace_context="trace")
    sent.user_properties["name"] = "value"
    await broker.send(sent)
    (received,) = await broker.receive(invisible_s=7)
    assert (received.topic, received.body, received.user_properties) == (sent.topic, sent.body, {"name": "value"})
    system = received.system_properties
    assert (system.message_id, system.tag, list(system.keys), system.trace_context) == (
        "id",
        "red",
        ["k1", "k2"],
        "trace",
    )
    assert (system.queue_id, system.queue_offset, system.delivery_attempt) == (0, 0, 1)
    assert system.invisible_duration.ToMilliseconds() == 7000
    assert system.body_encoding == definition_pb2.IDENTITY
    assert system.message_type == definition_pb2.NORMAL
    assert system.body_digest.checksum == "841A2D689AD86BD1611447453C22C6FC"
    assert 0 <= broker.now_ms() - system.store_timestamp.ToMilliseconds() < 100
    assert system.store_host


@simulated
async def test_a_lent_message_comes_again_after_its_invisible_time() -> None:
    broker = await _broker("m")
    (first,) = await broker.receive(invisible_s=5)
    assert not await broker.receive(wait_s=4.9)
    (second,) = await broker.receive(wait_s=0.2)
    assert (attempt(first), attempt(second)) == (1, 2)
    assert await broker.ack(first) == Code.INVALID_RECEIPT_HANDLE
    assert await broker.ack(second) == Code.OK
    assert not await broker.receive(wait_s=60)


@simulated
async def test_a_late_ack_still_counts_until_the_message_was_lent_anew() -> None:
    broker = await _broker("m")
    (first,) = await broker.receive(invisible_s=5)
    await asyncio.sleep(60)
    assert await broker.ack(first) == Code.OK
    assert not await broker.receive(wait_s=10)


@simulated
async def test_past_the_last_attempt_a_message_becomes_a_dead_letter_with_its_origin() -> None:
    broker = await Broker.started(group={"max_attempts": 3})
    sent = message(b"poison", "m", tag="red", keys=["key"])
    sent.user_properties["name"] = "value"
    await broker.send(sent)
    for number in (1, 2, 3):
        (received,) = await broker.receive(invisible_s=1, wait_s=2)
        assert attempt(received) == number
    assert not await broker.receive(wait_s=10)
    (letter,) = await broker.dead_letters()
    origin = {"DLQ_ORIGIN_TOPIC_ID": "1", "DLQ_ORIGIN_QUEUE_ID": "0", "DLQ_ORIGIN_QUEUE_OFFSET": "0"}
    assert (letter.body, letter.user_properties) == (b"poison", {"name": "value", **origin})
    assert letter.topic.name == "%DLQ%team"
    system = letter.system_properties
    assert (system.message_id, system.tag, list(system.keys)) == ("m", "red", ["key"])
    assert (system.dead_letter_queue.topic, system.dead_letter_queue.message_id) == ("orders", "m")
    assert (await broker.offset()).offset == 1


@simulated
async def test_a_batch_at_its_last_attempt_is_buried_once_also_when_asked_for_one_by_one() -> None:
    broker = await _broker(*NUMBERS, group={"max_attempts": 1})
    assert len(await broker.receive(invisible_s=1)) == 10
    await asyncio.sleep(2)
    while len(await broker.dead_letters()) < 10:
        assert not await broker.receive(batch_size=1, wait_s=1)
    await broker.receive(batch_size=1, wait_s=5)
    assert ids(await broker.dead_letters()) == NUMBERS


@simulated
async def test_a_batch_that_is_due_comes_to_small_polls_without_a_wait() -> None:
    broker = await _broker(*NUMBERS)
    assert len(await broker.receive(invisible_s=1)) == 10
    await asyncio.sleep(2)
    again = [id_ for _ in range(5) for id_ in ids(await broker.receive(batch_size=2, invisible_s=60))]
    assert again == NUMBERS


@simulated
async def test_dead_letters_can_be_received_as_any_topic() -> None:
    broker = await _broker("m", group={"max_attempts": 1})
    await broker.put_group("undertaker")
    (received,) = await broker.receive()
    assert await broker.forward(handle(received)) == Code.OK
    (letter,) = await broker.receive(topic="%DLQ%team", group="undertaker")
    assert ids([letter]) == ["m"]


@simulated
async def test_a_dead_letter_topic_that_was_deleted_is_made_again() -> None:
    broker = await _broker("1", "2")
    first, second = await broker.receive()
    assert await broker.forward(handle(first)) == Code.OK
    await broker.put_topic("%DLQ%team", version=1 << 60, deleted=True)
    assert await broker.forward(handle(second)) == Code.OK
    assert ids(await broker.dead_letters()) == ["2"]


@simulated
async def test_forwarding_settles_the_message_and_its_handle() -> None:
    broker = await _broker("m")
    (received,) = await broker.receive(invisible_s=1)
    assert await broker.forward(handle(received)) == Code.OK
    assert await broker.forward(handle(received)) == Code.INVALID_RECEIPT_HANDLE
    assert await broker.ack(received) == Code.INVALID_RECEIPT_HANDLE
    assert not await broker.receive(wait_s=5)
    assert len(await broker.dead_letters()) == 1


@simulated
async def test_changing_the_invisible_time_gives_a_new_handle_and_counts_from_now() -> None:
    broker = await _broker("m")
    (received,) = await broker.receive(invisible_s=2)
    await asyncio.sleep(1)
    changed = await broker.change(handle(received), 30)
    assert changed.status.code == Code.OK
    assert changed.receipt_handle != handle(received)
    assert await broker.ack(received) == Code.INVALID_RECEIPT_HANDLE
    assert not await broker.receive(wait_s=29)
    assert (await broker.ack_all(changed.receipt_handle)).status.code == Code.OK
    assert not await broker.receive(wait_s=10)


@simulated
async def test_a_message_given_back_comes_at_once_to_who_waits() -> None:
    broker = await _broker("m")
    (received,) = await broker.receive(invisible_s=60)
    waiting = asyncio.ensure_future(broker.receive(wait_s=20, client="another"))
    await asyncio.sleep(1)
    began_s = asyncio.get_running_loop().time()
    await broker.change(handle(received), 0)
    (again,) = await waiting
    assert asyncio.get_running_loop().time() - began_s < 0.5
    assert attempt(again) == 2


@pytest.mark.parametrize("multiplier", [None, 3.0])
@simulated
async def test_without_a_time_a_message_given_back_waits_for_the_group_s_backoff(multiplier: float | None) -> None:
    broker = await Broker.started(group={"backoff_s": [2, 6]})
    if multiplier is not None:
        retry = definition_pb2.RetryPolicy(max_attempts=16)
        retry.exponential_backoff.initial.seconds = 2
        retry.exponential_backoff.max.seconds = 6
        retry.exponential_backoff.multiplier = multiplier
        group = broker.group().definition
        group.retry.CopyFrom(retry)
    await broker.send_ids("m")
    for wait_s in (2, 6, 6):
        (received,) = await broker.receive()
        assert (await broker.change(handle(received), None)).status.code == Code.OK
        assert not await broker.receive(wait_s=wait_s - 0.1)
        assert await until(_is_due(broker), 0.3) < 0.3


def _is_due(broker: Broker) -> Any:
    def due() -> bool:
        (progress,) = broker.core.state.progress.values()
        return all(lease.deadline_ms <= broker.now_ms() for lease in progress.pending.values())

    return due


@simulated
async def test_a_suspended_attempt_does_not_count_however_often() -> None:
    broker = await _broker("m", group={"max_attempts": 2})
    (received,) = await broker.receive()
    changed = await broker.change(handle(received), 1, suspend=True)
    for _ in range(3):
        changed = await broker.change(changed.receipt_handle, None, suspend=True)
        assert changed.status.code == Code.OK, changed.status
    await broker.change(changed.receipt_handle, 0, suspend=True)
    (again,) = await broker.receive(wait_s=5)
    assert attempt(again) == 1


@simulated
async def test_a_repeated_receive_gets_the_same_messages_at_the_same_attempt() -> None:
    broker = await _broker(*NUMBERS)
    first = await broker.receive(batch_size=4, attempt_id="a")
    await broker.ack(first[0])
    again = await broker.receive(batch_size=4, attempt_id="a")
    assert ids(again) == NUMBERS[1:4]
    assert {attempt(one) for one in again} == {1}
    assert await broker.ack(first[1]) == Code.INVALID_RECEIPT_HANDLE, "both handles would be good"
    assert await broker.ack(*again) == Code.OK
    assert ids(await broker.receive(batch_size=4, attempt_id="a")) == NUMBERS[4:8]
    assert ids(await broker.receive(batch_size=4, attempt_id="b")) == NUMBERS[8:]


@simulated
async def test_a_repeated_receive_ends_the_one_that_waits() -> None:
    broker = await Broker.started()
    first = asyncio.ensure_future(broker.receive(wait_s=20, attempt_id="a"))
    await asyncio.sleep(1)
    second = asyncio.ensure_future(broker.receive(wait_s=20, attempt_id="a"))
    await asyncio.sleep(0.1)
    assert first.done()
    assert not first.result()
    await broker.send_ids("m")
    assert ids(await second) == ["m"]


@simulated
async def test_a_filter_passes_over_what_it_leaves_out_once_and_for_all() -> None:
    broker = await Broker.started()
    for number in range(20):
        await broker.send_ids(f"red-{number}", tag="red")
        await broker.send_ids(f"blue-{number}", tag="blue")
        await broker.send_ids(f"none-{number}")
    assert ids(await broker.receive(tags="red||green", batch_size=5)) == [f"red-{number}" for number in range(5)]
    rest = await broker.receive(tags=" red || green ", batch_size=100, wait_s=1)
    assert len(rest) == 15
    assert not await broker.receive(tags="red")
    assert not await broker.receive(tags="*"), "what was left out is settled"
    (progress,) = broker.core.state.progress.values()
    assert progress.high == 60


@simulated
async def test_a_filter_that_matches_nothing_remembers_how_far_it_read() -> None:
    broker = await _broker(*NUMBERS)
    assert not await broker.receive(tags="nothing")
    assert (await broker.offset()).offset == 10


@simulated
async def test_a_long_poll_wakes_when_a_message_is_on_the_disk() -> None:
    broker = await Broker.started()
    waiting = asyncio.ensure_future(broker.receive(wait_s=20))
    await asyncio.sleep(3)
    began_s = asyncio.get_running_loop().time()
    await broker.send_ids("m")
    assert ids(await waiting) == ["m"]
    assert asyncio.get_running_loop().time() - began_s < 0.1


@simulated
async def test_a_poll_is_answered_before_its_client_gives_up() -> None:
    broker = await Broker.started()
    for timeout_s in (0.2, 1.0, 3.0, 30.0):
        began_s = asyncio.get_running_loop().time()
        assert not [a for a in await broker.receive_all(wait_s=None, timeout_s=timeout_s) if a.HasField("message")]
        assert timeout_s * 0.5 < asyncio.get_running_loop().time() - began_s < timeout_s


@simulated
async def test_messages_that_no_cache_holds_come_also_to_who_does_not_wait() -> None:
    broker = await _broker(*NUMBERS, cache_bytes=0, queues=1)
    await broker.restart()
    assert ids(await broker.receive(wait_s=0, invisible_s=1)) == NUMBERS
    await asyncio.sleep(2)
    again = await broker.receive(wait_s=0)
    assert ids(again) == NUMBERS
    assert attempt(again[0]) == 2


@simulated
async def test_what_a_client_was_lent_and_did_not_wait_for_comes_soon_to_another() -> None:
    broker = await _broker(*NUMBERS, cache_bytes=0)
    await broker.restart()
    broker.shard.max_sync_s = 0.02
    received: list[Message] = []
    number = 0
    while not received:
        gone = asyncio.ensure_future(broker.receive(invisible_s=3600, wait_s=20))
        await asyncio.sleep(number / 2000)
        gone.cancel()
        await asyncio.wait((gone,))
        if not gone.cancelled():
            received = gone.result()
        number += 1
    assert number > 2, "nobody was cancelled while the disk was read"
    assert ids(received) == NUMBERS


@pytest.mark.parametrize("attempt_id", ["", "a"])
@simulated
async def test_an_answer_that_broke_off_is_not_kept_for_a_live_push_consumer(attempt_id: str) -> None:
    broker = await _broker(*NUMBERS)
    broker.connect("push")
    await asyncio.sleep(0.01)
    fields: dict[str, Any] = {"queue": 0, "client": "push", "auto_renew": True, "attempt_id": attempt_id}
    broken = asyncio.ensure_future(broker.receive(**fields))
    while not broker.core.state.progress:  # noqa: ASYNC110 - turns count here, not time
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    broken.cancel()
    await asyncio.wait((broken,))
    assert broken.cancelled()
    again = await broker.receive(**{**fields, "wait_s": 10, "attempt_id": "another"})
    assert ids(again) == NUMBERS
    assert {attempt(one) for one in again} == {2}


@simulated
async def test_no_fresh_messages_past_the_bound_of_pending_ones() -> None:
    broker = await _broker(*NUMBERS, max_pending_messages=4)
    first = await broker.receive(batch_size=4, invisible_s=100)
    assert ids(first) == NUMBERS[:4]
    waiting = asyncio.ensure_future(broker.receive(wait_s=20, batch_size=1))
    await asyncio.sleep(5)
    assert not waiting.done()
    await broker.ack(first[2])
    assert ids(await waiting) == NUMBERS[4:5]


@pytest.mark.parametrize("how", ["forward", "reset", "bury"])
@simulated
async def test_the_bound_opens_again_however_the_pending_ones_are_settled(how: str) -> None:
    broker = await _broker(*NUMBERS, max_pending_messages=2, group={"max_attempts": 1})
    first = await broker.receive(batch_size=2, invisible_s=3 if how == "bury" else 100)
    waiting = asyncio.ensure_future(broker.receive(wait_s=20, batch_size=8))
    await asyncio.sleep(1)
    assert not waiting.done()
    if how == "forward":
        await broker.forward(handle(first[0]))
    elif how == "reset":
        await broker.set_offset(2)
    await asyncio.sleep(5)
    assert waiting.done()
    assert ids(waiting.result())[0] == "m2"


@simulated
async def test_setting_an_offset_voids_the_leases_of_the_queue() -> None:
    broker = await _broker(*NUMBERS)
    before = await broker.receive(batch_size=6)
    await broker.ack(*before[:3])
    assert await broker.set_offset(2) == Code.OK
    for one in before:
        assert await broker.ack(one) == Code.INVALID_RECEIPT_HANDLE
        assert (await broker.change(handle(one), 1)).status.code == Code.INVALID_RECEIPT_HANDLE
    again = await broker.receive()
    assert ids(again) == NUMBERS[2:]
    assert {attempt(one) for one in again} == {1}
    assert await broker.set_offset(10) == Code.OK
    assert not await broker.receive(wait_s=60)


@simulated
async def test_an_ack_and_a_reset_in_one_turn_happen_in_their_order() -> None:
    broker = await _broker(*NUMBERS)
    received = await broker.receive()
    waiting = asyncio.ensure_future(broker.receive(wait_s=20))
    await asyncio.sleep(0.1)
    answers = await asyncio.gather(broker.ack(*received), broker.set_offset(5))
    assert answers == [Code.OK, Code.OK]
    assert ids(await waiting) == NUMBERS[5:]


@simulated
async def test_leases_and_acks_survive_a_crash() -> None:
    broker = await _broker(*NUMBERS)
    received = await broker.receive(batch_size=4, invisible_s=5)
    assert await broker.ack(received[1]) == Code.OK
    await broker.crash()
    assert await broker.ack(received[0]) == Code.OK, "the lease was recorded, so its handle is good"
    assert await broker.ack(received[1]) == Code.INVALID_RECEIPT_HANDLE
    assert ids(await broker.receive(batch_size=10, wait_s=0)) == NUMBERS[4:]
    await asyncio.sleep(5)
    again = await broker.receive(wait_s=0)
    assert ids(again) == ["m2", "m3"]
    assert {attempt(one) for one in again} == {2}


@simulated
async def test_a_message_of_a_group_at_a_later_topic_starts_at_the_earliest() -> None:
    broker = await _broker(*NUMBERS)
    await broker.put_group("late")
    assert ids(await broker.receive(group="late")) == NUMBERS


@simulated
async def test_groups_do_not_disturb_each_other() -> None:
    broker = await _broker(*NUMBERS)
    await broker.put_group("others")
    received = await broker.receive()
    await broker.ack(*received)
    assert ids(await broker.receive(group="others")) == NUMBERS


@simulated
async def test_all_queues_are_asked_and_none_starves() -> None:
    broker = await Broker.started(queues=4)
    for number in range(40):
        await broker.send_ids(str(number))
    queues: set[int] = set()
    for _ in range(8):
        queues.update(one.system_properties.queue_id for one in await broker.receive(batch_size=2))
    assert queues == {0, 1, 2, 3}


@simulated
async def test_polls_end_when_their_group_or_topic_is_deleted() -> None:
    broker = await Broker.started()
    for delete in (
        broker.put_group("team", version=7, deleted=True),
        broker.put_topic("orders", version=7, deleted=True),
    ):
        waiting = asyncio.ensure_future(broker.receive(wait_s=20))
        await asyncio.sleep(1)
        await delete
        await asyncio.sleep(0.1)
        assert waiting.done()
        await broker.put_group("team", version=8)


@simulated
async def test_a_group_of_the_same_name_begins_anew() -> None:
    broker = await _broker(*NUMBERS)
    old = await broker.receive(batch_size=5)
    await broker.ack(*old[:3])
    await broker.put_group("team", version=2, deleted=True)
    await broker.put_group("team", version=3)
    assert await broker.ack(old[4]) == Code.INVALID_RECEIPT_HANDLE
    assert ids(await broker.receive()) == NUMBERS


@simulated
async def test_without_the_permission_to_read_nothing_is_lent() -> None:
    broker = await _broker("m")
    await broker.put_topic("orders", version=2, permission=definition_pb2.WRITE)
    (answer,) = await broker.receive_all()
    assert answer.status.code == Code.FORBIDDEN
    await broker.put_topic("orders", version=3)
    assert len(await broker.receive()) == 1


def test_a_queue_that_cannot_be_read_holds_up_no_other() -> None:
    async def play() -> None:
        broker = await Broker.started(queues=2, cache_bytes=0)
        for id_ in ("a", "b", "c", "d"):
            await broker.send_ids(id_)
        read = broker.core.log.read

        async def fails_once(position: int, length: int) -> bytes:
            broker.core.log.read = read
            raise OSError("the disk cannot read this")

        first = await broker.receive(batch_size=1)
        broker.core.log.read = fails_once
        received = await broker.receive(batch_size=4)
        assert received, "the other queue is read"
        received += await broker.receive(batch_size=4)
        assert sorted(ids([*first, *received])) == ["a", "b", "c", "d"]

    with structlog.testing.capture_logs() as logs:
        simulate(play())
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["a queue cannot be read"]


@simulated
async def test_what_serves_all_polls_is_part_of_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    served_for: list[Any] = []
    serve = Subscription._serve

    async def observed(subscription: Subscription) -> None:
        served_for.append(current_call.get())
        await serve(subscription)

    monkeypatch.setattr(Subscription, "_serve", observed)
    broker = await _broker("m1")
    assert await broker.receive()
    assert served_for == [None]
