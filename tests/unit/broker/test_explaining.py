"""What became of a message: told by the broker from its log, after restarts and past retention too."""

import asyncio
from typing import Any

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from tests.unit.broker.alone import MIB, Broker, handle, message, resource, simulated, until

PB = broker_pb2
Code = definition_pb2.Code


async def explain(broker: Broker, message_id: str, topic: str = "orders") -> broker_pb2.ExplainMessageResponse:
    request = PB.ExplainMessageRequest(topic=resource(topic) if topic else None, message_id=message_id)
    return await broker.doors.call(broker_rpc.EXPLAIN_MESSAGE, request, {})


async def story_of(broker: Broker, message_id: str, topic: str = "orders") -> broker_pb2.MessageStory:
    answer = await explain(broker, message_id, topic)
    assert answer.status.code == Code.OK, answer.status
    (story,) = answer.stories
    return story


async def group_of(broker: Broker, message_id: str, group: str = "team") -> broker_pb2.GroupStory:
    story = await story_of(broker, message_id)
    return next(told for told in story.groups if told.group.name == group)


def kinds(group: broker_pb2.GroupStory | broker_pb2.MessageStory) -> list[str]:
    return [PB.StoryKind.Name(event.kind).removeprefix("STORY_KIND_") for event in group.events]


@simulated
async def test_consumed_after_a_second_attempt_by_another_member() -> None:
    broker = await Broker.started(group={"backoff_s": [5]})
    stored_ms = broker.now_ms()
    await broker.send_ids("one")
    (first,) = await broker.receive(client="c1", invisible_s=10)
    await broker.change(handle(first), 3)
    await asyncio.sleep(4)
    (again,) = await broker.receive(client="c2", invisible_s=10)
    assert await broker.ack(again) == Code.OK
    story = await story_of(broker, "one")
    assert kinds(story) == ["STORED"]
    assert abs(story.events[0].time.ToMilliseconds() - stored_ms) < 1000
    system = story.message.system_properties
    assert (system.message_id, system.queue_id, system.queue_offset, story.message.body) == ("one", 0, 0, b"")
    (group,) = story.groups
    assert (group.group.name, group.fate, group.waits_for) == ("team", PB.FATE_CONSUMED, "")
    assert kinds(group) == ["LEASED", "LEASE_CHANGED", "LEASED", "ACKNOWLEDGED"]
    lent, changed, due, acked = group.events
    assert [(event.client_id, event.attempt) for event in group.events] == [("c1", 1), ("c1", 1), ("c2", 2), ("c2", 2)]
    assert lent.until.ToMilliseconds() - lent.time.ToMilliseconds() == pytest.approx(10_000, abs=100)
    assert changed.until.ToMilliseconds() < lent.until.ToMilliseconds()
    assert due.note == "due again"
    positions = [story.events[0].log_position, *(event.log_position for event in group.events)]
    assert positions == sorted(set(positions))
    assert acked.time.ToMilliseconds() >= due.time.ToMilliseconds()


@simulated
async def test_filtered_for_one_dead_lettered_for_another_waiting_for_a_third() -> None:
    broker = await Broker.started()
    for name, fields in {"choosy": {}, "failing": {"max_attempts": 1}, "away": {}}.items():
        await broker.put_group(name, **fields)
    await broker.send_ids("one", tag="blue")
    await broker.send_ids("two", tag="red")
    assert len(await broker.receive(group="choosy", tags="red", client="picky")) == 1
    assert len(await broker.receive(group="failing", tags="blue", invisible_s=1, client="clumsy")) == 1
    await asyncio.sleep(2)
    await broker.receive(group="failing", tags="blue")
    broker.connect("idler", group="away")
    await until(lambda: len(broker.core.clients) > 2)
    story = await story_of(broker, "one")
    told = {group.group.name: group for group in story.groups}
    assert {name: group.fate for name, group in told.items()} == {
        "choosy": PB.FATE_FILTERED,
        "failing": PB.FATE_DEAD_LETTERED,
        "away": PB.FATE_WAITING,
    }
    assert kinds(told["choosy"]) == ["FILTERED"]
    assert told["choosy"].events[0].client_id == "picky"
    assert told["away"].waits_for == "the group has read nothing from this queue yet"
    buried = told["failing"].events[-1]
    assert kinds(told["failing"]) == ["LEASED", "DEAD_LETTERED"]
    assert "after attempt 1; to %DLQ%failing, offset 0: broker-a@" in buried.note
    (letter,) = (await explain(broker, buried.note.rpartition(" ")[2], topic="")).stories
    assert letter.message.topic.name == "%DLQ%failing"


@simulated
async def test_why_it_waits() -> None:
    broker = await Broker.started(group={"max_attempts": 2}, max_pending_messages=2)
    await broker.send_ids("one")
    await broker.send_ids("two")
    await broker.send_ids("three")
    await broker.send_ids("four")
    assert (await explain(broker, "one")).stories[0].groups == []  # nobody reads the topic
    (first,) = await broker.receive(batch_size=1, invisible_s=20, client="c1")
    assert (await group_of(broker, "one")).waits_for == "lent to c1 for another 20 s (attempt 1)"
    assert (await group_of(broker, "two")).waits_for == "it is the next of its queue"
    await broker.leave("c1")
    assert (await group_of(broker, "three")).waits_for == (
        "behind 1 other message of its queue; no member of the group is connected"
    )
    await broker.change(handle(first), 8)
    assert (await group_of(broker, "one")).waits_for == "due again in 8.0 s, after attempt 1 by c1"
    await asyncio.sleep(10)
    assert (await group_of(broker, "one")).waits_for == (
        "due again since 2.0 s, after attempt 1 of 2; no member of the group is connected"
    )
    assert len(await broker.receive(client="c2", batch_size=2, invisible_s=1)) == 2
    await asyncio.sleep(3)
    assert (await group_of(broker, "one")).waits_for == (
        "due since 2.0 s, after attempt 2, the last one: it becomes a dead letter when asked for"
    )
    assert (await group_of(broker, "four")).waits_for == (
        "behind 1 other message of its queue; the group holds 2 messages of this queue unsettled: the limit"
    )
    await broker.put_topic("orders", version=2, permission=definition_pb2.WRITE)
    assert (await group_of(broker, "four")).waits_for.endswith("; the topic permits no reads")


@simulated
async def test_leases_that_live_as_long_as_their_client() -> None:
    broker = await Broker.started()
    broker.connect("c1")
    await until(lambda: len(broker.core.clients) > 0)
    await broker.send_ids("one")
    await broker.receive(queue=0, client="c1", auto_renew=True, invisible_s=None)
    group = await group_of(broker, "one")
    assert group.waits_for == "lent to c1 as long as it lives (attempt 1)"
    assert group.events[0].note == "renewed while it lives"
    await broker.leave("c1")
    assert (await group_of(broker, "one")).waits_for == (
        "due again, after attempt 1 of 16; no member of the group is connected"
    )


@simulated
async def test_offsets_skip_and_bring_back() -> None:
    broker = await Broker.started()
    await broker.send_ids("one")
    await broker.send_ids("two")
    await broker.receive(batch_size=1)
    assert await broker.set_offset(2) == Code.OK
    skipped = await group_of(broker, "one")
    assert (skipped.fate, kinds(skipped)) == (PB.FATE_SKIPPED, ["LEASED", "OFFSET_SET"])
    assert skipped.events[1].note == "the group's offset was set to 2"
    assert await broker.set_offset(0) == Code.OK
    back = await group_of(broker, "two")
    assert (back.fate, kinds(back)) == (PB.FATE_WAITING, ["OFFSET_SET", "OFFSET_SET"])
    assert back.waits_for == "behind 1 other message of its queue"


@simulated
async def test_a_dead_letter_that_is_given_back() -> None:
    broker = await Broker.started()
    await broker.send_ids("one")
    (first,) = await broker.receive(client="c1")
    assert await broker.forward(handle(first)) == Code.OK
    request = PB.ResendDeadLettersRequest(group=resource("team"), offsets=[0])
    await broker.doors.call(broker_rpc.RESEND_DEAD_LETTERS, request, {})
    team = await group_of(broker, "one")
    assert (team.fate, kinds(team)) == (PB.FATE_WAITING, ["LEASED", "DEAD_LETTERED", "RESENT"])
    assert team.waits_for == "resent, and due at once"
    assert kinds(await story_of(broker, "one", "%DLQ%team")) == ["STORED", "RESENT"]
    await broker.ack(*await broker.receive(client="c2"))
    team = await group_of(broker, "one")
    assert (team.fate, kinds(team)[3:]) == (PB.FATE_CONSUMED, ["LEASED", "ACKNOWLEDGED"])
    assert [event.attempt for event in team.events[3:]] == [1, 1]


@simulated
async def test_a_group_that_begins_at_the_end() -> None:
    broker = await Broker.started()
    await broker.put_group("late", start=record_pb2.START_LAST)
    await broker.send_ids("one")
    broker.connect("c1", group="late")
    await until(lambda: len(broker.core.clients) > 1)
    assert "it will not get this message" in (await group_of(broker, "one", "late")).waits_for
    assert await broker.receive(group="late", client="c1", queue=0) == []
    late = await group_of(broker, "one", "late")
    assert (late.fate, kinds(late)) == (PB.FATE_SKIPPED, ["OFFSET_SET"])


@simulated
async def test_behind_its_message_group() -> None:
    broker = await Broker.started(group={"order": record_pb2.ORDER_FIFO})
    await broker.put_topic("steps", type=definition_pb2.FIFO)
    for id_ in ("one", "two"):
        await broker.send(message(id_=id_, topic="steps", message_group="g", message_type=definition_pb2.FIFO))
    (first,) = await broker.receive(topic="steps")

    async def second() -> broker_pb2.GroupStory:
        return (await story_of(broker, "two", "steps")).groups[0]

    held = await second()
    assert (kinds(held), held.waits_for) == (["HELD_BACK"], "behind offset 0 of its message group")
    assert await broker.ack(first, topic="steps") == Code.OK
    (_second,) = await broker.receive(topic="steps")
    assert kinds(await second()) == ["HELD_BACK", "LEASED"]
    assert (await second()).events[1].note == "its turn had come"


@simulated
@pytest.mark.parametrize("clean", [True, False])
async def test_a_restart_forgets_nothing(clean: bool) -> None:
    broker = await Broker.started(snapshot_every_bytes=MIB)
    await broker.send_ids("one", tag="a")
    await broker.put_group("choosy")
    await broker.receive(group="choosy", tags="b")
    (first,) = await broker.receive(client="c1")
    number = 0
    while len(broker.core.log.segments()) < 4:
        await broker.send(message(b"x" * 200_000, id_=f"fill-{number}"))
        number += 1
    assert await broker.ack(first) == Code.OK
    await broker.core.check_retention()
    before = await story_of(broker, "one")
    assert {group.group.name: kinds(group) for group in before.groups} == {
        "choosy": ["FILTERED"],
        "team": ["LEASED", "ACKNOWLEDGED"],
    }
    await (broker.restart() if clean else broker.crash())
    assert await story_of(broker, "one") == before
    for name in [name for name in broker.shard.disk.blobs if name.startswith(("keys-", "history-"))]:
        broker.shard.disk.blobs[name] = b"damaged"
    assert await story_of(broker, "one") == before


async def _filled(broker: Broker, segments: int = 3) -> None:
    number = 0
    while len(broker.core.log.segments()) <= segments:
        await broker.send(message(b"x" * 200_000, id_=f"fill-{number}"))
        number += 1


@simulated
async def test_past_retention_it_is_no_longer_known() -> None:
    broker = await Broker.started(retention_bytes=MIB, snapshot_every_bytes=MIB)
    began_ms = broker.now_ms()
    await broker.send_ids("one")
    await broker.ack(*await broker.receive())
    await asyncio.sleep(100)
    await _filled(broker)
    assert (await explain(broker, "one")).known_since.ToMilliseconds() < began_ms + 1000
    await broker.core.check_retention()
    answer = await explain(broker, "one")
    assert answer.status.code == Code.OK
    assert answer.stories == []
    oldest = broker.core.log.segments()[0].first_stored_ms
    assert answer.known_since.ToMilliseconds() == oldest > began_ms + 50_000


@simulated
async def test_a_message_that_outlives_its_segment() -> None:
    """It is lent, so it is carried forward: what happened from then on is known."""
    broker = await Broker.started(retention_bytes=MIB, snapshot_every_bytes=MIB)
    await broker.put_group("quick")
    await broker.send_ids("one")
    (first,) = await broker.receive(client="c1", batch_size=1, invisible_s=40_000)
    await broker.ack(*await broker.receive(group="quick"), group="quick")
    await _filled(broker)
    await broker.core.check_retention()
    await broker.receive(group="quick", tags="other")  # it moves on
    story = await story_of(broker, "one")
    assert kinds(story) == ["STORED"]
    assert "a copy" in story.events[0].note
    quick, group = story.groups
    assert (quick.group.name, quick.fate, list(quick.events)) == ("quick", PB.FATE_UNSPECIFIED, [])
    assert (group.fate, group.events, group.waits_for) == (
        PB.FATE_WAITING,
        [],
        "lent to c1 for another 11 h 6 min (attempt 1)",
    )
    assert await broker.ack(first) == Code.OK
    _quick, group = (await story_of(broker, "one")).groups
    assert (group.fate, kinds(group)) == (PB.FATE_CONSUMED, ["ACKNOWLEDGED"])
    await broker.put_group("late")
    broker.connect("c2", group="late")
    await until(lambda: broker.core.clients.get("c2") is not None)
    late = await group_of(broker, "one", "late")  # it begins behind what is gone
    assert (late.fate, late.waits_for) == (PB.FATE_EXPIRED, "")


@simulated
async def test_groups_that_were_deleted_are_still_named() -> None:
    broker = await Broker.started()
    await broker.send_ids("one")
    await broker.receive(client="c1")
    await broker.put_group("team", version=2, deleted=True)
    (group,) = (await story_of(broker, "one")).groups
    assert (group.group.name, group.waits_for, kinds(group)) == ("team", "the group was deleted", ["LEASED"])


@simulated
async def test_an_id_that_was_stored_twice_has_two_stories() -> None:
    broker = await Broker.started(queues=2, dedup_window_s=0)
    await broker.send_ids("one")
    await broker.send_ids("one")
    stories = (await explain(broker, "one")).stories
    assert [story.message.system_properties.queue_id for story in stories] == [0, 1]
    position = stories[1].events[0].log_position
    (second,) = (await explain(broker, f"broker-a@{position:x}.0", topic="")).stories
    assert second == stories[1]


@simulated
@pytest.mark.parametrize(
    ("message_id", "topic", "code"),
    [
        ("", "orders", Code.ILLEGAL_MESSAGE_ID),
        ("one", "", Code.BAD_REQUEST),
        ("one", "nobody-made-it", Code.TOPIC_NOT_FOUND),
        ("one", "or/ders", Code.ILLEGAL_TOPIC),
    ],
)
async def test_bad_questions(message_id: str, topic: str, code: int) -> None:
    broker = await Broker.started()
    answer = await explain(broker, message_id, topic)
    assert (answer.status.code, bool(answer.status.message)) == (code, True)


@simulated
@pytest.mark.parametrize(
    "message_id", ["two", "broker-a@0.0", "broker-a@7fffffff.0", "broker-b@0.0", "broker-a@ffffffffffffffff.9"]
)
async def test_what_nobody_stored(message_id: str) -> None:
    broker = await Broker.started()
    await broker.send_ids("one")
    answer: Any = await explain(broker, message_id)
    assert (answer.status.code, list(answer.stories)) == (Code.OK, [])
    assert answer.HasField("known_since")


# Before it is in a queue


async def find(broker: Broker, message_id: str, topic: str) -> list[broker_pb2.FoundMessage]:
    request = PB.FindMessagesRequest(topic=resource(topic), message_id=message_id)
    return list((await broker.doors.call(broker_rpc.FIND_MESSAGES, request, {})).messages)


async def send_delayed(broker: Broker, id_: str, delay_s: float) -> tuple[int, str]:
    """-> when it is due, its recall handle."""
    due_ms = broker.now_ms() + int(delay_s * 1000)
    late = message(id_=id_, topic="later", message_type=definition_pb2.DELAY)
    late.system_properties.delivery_timestamp.FromMilliseconds(due_ms)
    answer = await broker.send(late)
    assert answer.status.code == Code.OK, answer.status
    return due_ms, answer.entries[0].recall_handle


@simulated
async def test_delayed_then_due_then_consumed_is_one_story() -> None:
    broker = await Broker.started()
    await broker.put_topic("later", type=definition_pb2.DELAY)
    due_ms, _handle = await send_delayed(broker, "one", 7500)
    story = await story_of(broker, "one", "later")
    assert (kinds(story), list(story.groups)) == (["DELAYED"], [])
    assert story.events[0].until.ToMilliseconds() == due_ms
    assert story.waits_for == "its time comes in 2 h 4 min"
    (found,) = await find(broker, "one", "later")
    assert not found.message.system_properties.HasField("queue_offset")
    await asyncio.sleep(7600)
    await broker.ack(*await broker.receive(topic="later"), topic="later")
    story = await story_of(broker, "one", "later")
    assert (kinds(story), story.waits_for) == (["DELAYED", "DUE", "STORED"], "")
    assert [kinds(group) for group in story.groups] == [["LEASED", "ACKNOWLEDGED"]]
    assert [copy.message.system_properties.queue_offset for copy in await find(broker, "one", "later")] == [0]
    (same,) = (await explain(broker, found.offset_message_id, topic="")).stories
    assert same == story


@simulated
async def test_recalled() -> None:
    broker = await Broker.started()
    await broker.put_topic("later", type=definition_pb2.DELAY)
    _due_ms, recall_handle = await send_delayed(broker, "one", 60)
    request = service_pb2.RecallMessageRequest(topic=resource("later"), recall_handle=recall_handle)
    await broker.doors.call(service_rpc.RECALL_MESSAGE, request, {"x-mq-client-id": "producer"})
    story = await story_of(broker, "one", "later")
    assert (kinds(story), story.waits_for, list(story.groups)) == (["DELAYED", "RECALLED"], "", [])
    assert await find(broker, "one", "later") == []


@simulated
async def test_transactions_that_are_open_committed_and_given_up() -> None:
    broker = await Broker.started(transaction_check_after_s=5, transaction_check_interval_s=5, transaction_max_checks=2)
    await broker.put_topic("payments", type=definition_pb2.TRANSACTION)
    broker.connect("payer", definition_pb2.PRODUCER, topics=("payments",))

    async def begin(id_: str) -> str:
        half = message(id_=id_, topic="payments", message_type=definition_pb2.TRANSACTION)
        return (await broker.send(half, client="payer")).entries[0].transaction_id

    transaction = await begin("one")
    await begin("two")
    story = await story_of(broker, "one", "payments")
    assert kinds(story) == ["HALF"]
    assert story.waits_for.startswith(
        "its transaction is open since 0.0 s: the producer was asked 0 times, and is asked in "
    )
    assert [found.message.system_properties.message_id for found in await find(broker, "one", "payments")] == ["one"]
    await until(lambda: any(half.checks for _topic, _id, half in broker.core.state.half_messages), within_s=20)
    story = await story_of(broker, "one", "payments")
    assert kinds(story) == ["HALF", "CHECKED"]
    assert (story.events[1].client_id, story.events[1].attempt) == ("payer", 1)
    assert "the producer was asked once" in story.waits_for
    end = service_pb2.EndTransactionRequest(
        topic=resource("payments"), message_id="one", transaction_id=transaction, resolution=definition_pb2.COMMIT
    )
    await broker.doors.call(service_rpc.END_TRANSACTION, end, {"x-mq-client-id": "payer"})
    story = await story_of(broker, "one", "payments")
    assert (kinds(story), story.waits_for) == (["HALF", "CHECKED", "COMMITTED", "STORED"], "")
    assert len(await find(broker, "one", "payments")) == 1
    await until(lambda: not len(broker.core.state.half_messages), within_s=60)
    story = await story_of(broker, "two", "payments")
    assert kinds(story) == ["HALF", "CHECKED", "CHECKED", "ROLLED_BACK"]
    assert "no producer said in time" in story.events[-1].note
    assert await find(broker, "two", "payments") == []


@simulated
async def test_a_held_message_that_outlives_its_segment() -> None:
    broker = await Broker.started(retention_bytes=MIB, snapshot_every_bytes=MIB)
    await broker.put_topic("later", type=definition_pb2.DELAY)
    due_ms, _handle = await send_delayed(broker, "one", 24 * 3600)
    await _filled(broker)
    await broker.core.check_retention()
    story = await story_of(broker, "one", "later")
    assert kinds(story) == ["DELAYED"]
    assert "a copy" in story.events[0].note
    assert story.events[0].until.ToMilliseconds() == due_ms
    assert story.waits_for.startswith("its time comes in 23 h")
    assert len(await find(broker, "one", "later")) == 1
    await asyncio.sleep(24 * 3600)
    assert kinds(await story_of(broker, "one", "later")) == ["DELAYED", "DUE", "STORED"]
