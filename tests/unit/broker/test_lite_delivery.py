"""Lite consumers: each lite topic strictly in order, whoever reads it, whatever happens meanwhile."""

import asyncio
from collections.abc import Sequence

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.operations import lite_subscriptions
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.lite_delivery import LiteSubscription
from kourou_broker.operations.section_reader import SectionReader
from tests.unit.broker.alone import Broker, Message, attempt, handle, ids, resource, simulated, until
from tests.unit.broker.lite import (
    COMPLETE_ADD,
    COMPLETE_REMOVE,
    PARTIAL_ADD,
    PARTIAL_REMOVE,
    Code,
    lite,
    lite_broker,
    lite_topics,
    send,
    subscribe,
    sync,
)

FIFO = {"order": record_pb2.ORDER_FIFO}
LITE_PUSH = definition_pb2.LITE_PUSH_CONSUMER


async def received(broker: Broker, client: str = "consumer", **fields: object) -> str:
    """The ids of what one call brings, and each of them is acknowledged."""
    messages = await broker.receive(client=client, **fields)
    if messages:
        assert await broker.ack(*messages, client=client) == Code.OK
    return " ".join(ids(messages))


def delivery(broker: Broker) -> LiteSubscription:
    return broker.core.deliveries.to_lite_group(broker.group())


def commands(answers: Sequence[bytes]) -> list[str]:
    """The lite topics that a client was told it has lost."""
    parsed = [service_pb2.TelemetryCommand.FromString(answer) for answer in answers]
    return [
        command.notify_unsubscribe_lite_command.lite_topic
        for command in parsed
        if command.HasField("notify_unsubscribe_lite_command")
    ]


# What a client gets


@simulated
async def test_a_client_gets_the_lite_topics_that_it_reads_and_no_others() -> None:
    broker = await lite_broker()
    await send(broker, "a1 b1 c1")
    await subscribe(broker, "consumer", "a b")
    messages = await broker.receive()
    assert ids(messages) == ["a1", "b1"]
    first = messages[0]
    assert first.topic.name == "orders"
    assert first.system_properties.lite_topic == "a"
    assert first.system_properties.message_type == definition_pb2.LITE
    assert first.system_properties.queue_offset == 0
    assert await broker.ack(*messages) == Code.OK
    assert await received(broker) == ""


@simulated
async def test_who_reads_nothing_gets_nothing() -> None:
    broker = await lite_broker()
    await send(broker, "a1")
    assert await received(broker) == ""


@simulated
async def test_of_a_lite_topic_comes_one_message_at_a_time() -> None:
    broker = await lite_broker()
    await send(broker, "a1 a2 b1 a3")
    await subscribe(broker, "consumer", "a b")
    first = await broker.receive()
    assert ids(first) == ["a1", "b1"]
    assert await received(broker) == ""
    await broker.ack(first[0])
    assert await received(broker) == "a2"
    assert await received(broker) == "a3"


@simulated
async def test_a_group_that_keeps_order_gets_some_in_a_row_and_then_none_until_all_are_settled() -> None:
    broker = await lite_broker(group=FIFO)
    await send(broker, "a1 a2 b1 a3")
    await subscribe(broker, "consumer", "a b")
    first = await broker.receive(batch_size=2)
    assert ids(first) == ["a1", "a2"]
    assert await received(broker) == "b1"
    await broker.ack(first[0])
    assert await received(broker) == ""
    await broker.ack(first[1])
    assert await received(broker) == "a3"


@simulated
async def test_a_poll_wakes_for_a_message_of_a_lite_topic_that_was_not_there_when_it_began() -> None:
    broker = await lite_broker()
    await subscribe(broker, "consumer", "a")
    poll = asyncio.create_task(broker.receive(wait_s=20))
    await asyncio.sleep(1)
    await send(broker, "b1 a1")
    assert ids(await asyncio.wait_for(poll, 1)) == ["a1"]


@simulated
async def test_a_poll_wakes_when_its_client_begins_to_read_and_when_a_message_is_settled() -> None:
    broker = await lite_broker()
    await send(broker, "a1 a2")
    poll = asyncio.create_task(broker.receive(wait_s=20))
    await asyncio.sleep(1)
    await subscribe(broker, "consumer", "a")
    (first,) = await asyncio.wait_for(poll, 1)
    poll = asyncio.create_task(broker.receive(wait_s=20))
    await asyncio.sleep(1)
    await broker.ack(first)
    assert ids(await asyncio.wait_for(poll, 1)) == ["a2"]


@simulated
async def test_what_was_not_settled_comes_again_in_order_when_its_time_is_over() -> None:
    broker = await lite_broker(group=FIFO)
    await send(broker, "a1 a2 a3")
    await subscribe(broker, "consumer", "a")
    first = await broker.receive(batch_size=3, invisible_s=10)
    await broker.ack(first[0])
    poll = asyncio.create_task(broker.receive(wait_s=20, batch_size=2))
    again = await asyncio.wait_for(poll, 11)
    assert [(*ids([message]), attempt(message)) for message in again] == [("a2", 2), ("a3", 2)]
    assert await broker.ack(first[1]) == Code.INVALID_RECEIPT_HANDLE
    assert await broker.ack(*again) == Code.OK


@simulated
async def test_nothing_newer_comes_while_an_older_one_waits_for_its_next_attempt() -> None:
    broker = await lite_broker(group=FIFO)
    await send(broker, "a1 a2 a3")
    await subscribe(broker, "consumer", "a")
    first = await broker.receive(batch_size=2, invisible_s=60)
    await broker.change(handle(first[0]), 5)
    await broker.ack(first[1])
    assert await received(broker, wait_s=4) == ""
    again = await broker.receive(wait_s=2)
    assert [(*ids([message]), attempt(message)) for message in again] == [("a1", 2), ("a3", 1)]


@simulated
async def test_a_suspended_message_pauses_its_lite_topic_and_no_attempt_is_counted() -> None:
    broker = await lite_broker()
    await send(broker, "a1 a2 b1")
    await subscribe(broker, "consumer", "a b")
    first = await broker.receive(batch_size=1)
    answer = await broker.change(handle(first[0]), 30, suspend=True)
    assert answer.status.code == Code.OK
    assert await received(broker) == "b1"
    assert await received(broker, wait_s=28) == ""
    (again,) = await broker.receive(wait_s=5)
    assert (*ids([again]), attempt(again)) == ("a1", 1)


@simulated
async def test_a_message_past_its_attempts_becomes_a_dead_letter_and_the_next_one_comes() -> None:
    broker = await lite_broker(group={"max_attempts": 2})
    await send(broker, "a1 a2")
    await subscribe(broker, "consumer", "a")
    for number in (1, 2):
        (message,) = await broker.receive(wait_s=2)
        assert (*ids([message]), attempt(message)) == ("a1", number)
        await broker.change(handle(message), 1)
    assert await received(broker, wait_s=5) == "a2"
    (letter,) = await broker.dead_letters()
    assert letter.system_properties.lite_topic == "a"
    assert letter.system_properties.dead_letter_queue.topic == "orders"


@simulated
async def test_a_client_can_forward_a_message_to_the_dead_letters() -> None:
    broker = await lite_broker()
    await send(broker, "a1 a2")
    await subscribe(broker, "consumer", "a")
    (message,) = await broker.receive()
    assert await broker.forward(handle(message)) == Code.OK
    assert await received(broker) == "a2"
    assert ids(await broker.dead_letters()) == ["a1"]


@simulated
async def test_a_dead_letter_goes_back_to_its_lite_topic_as_long_as_that_is_there() -> None:
    broker = await lite_broker(topic={"lite_expiration_minutes": 15})
    await send(broker, "a1 a2 b1")
    await subscribe(broker, "consumer", "a b")
    for message in await broker.receive():
        assert await broker.forward(handle(message)) == Code.OK
    held = await broker.receive()
    assert ids(held) == ["a2"]
    request = broker_pb2.ResendDeadLettersRequest(group=resource("team"), offsets=[0])
    await broker.doors.call(broker_rpc.RESEND_DEAD_LETTERS, request, {})
    assert await received(broker) == "", "a2 is lent"
    await broker.ack(*held)
    assert await received(broker) == "a1"
    await asyncio.sleep(16 * 60)
    await broker.core.lite_store.sweep()
    await send(broker, "c1 d1")  # they have the queues now
    await subscribe(broker, "consumer", "c d")
    request.offsets[:] = [1]
    answer = await broker.doors.call(broker_rpc.RESEND_DEAD_LETTERS, request, {})
    assert "has expired" in str(answer)
    assert await received(broker) == "c1 d1"


@simulated
async def test_a_repeated_attempt_gets_the_same_messages() -> None:
    broker = await lite_broker()
    await send(broker, "a1")
    await subscribe(broker, "consumer", "a")
    first = await broker.receive(attempt_id="x")
    again = await broker.receive(attempt_id="x")
    assert ids(first) == ids(again) == ["a1"]
    assert attempt(again[0]) == 1
    assert await broker.ack(again[0]) == Code.OK


@simulated
async def test_a_poison_message_holds_up_its_lite_topic_alone() -> None:
    broker = await lite_broker()
    await send(broker, "a1 a2 b1 b2")
    await subscribe(broker, "consumer", "a b")
    assert ids(await broker.receive(batch_size=1, invisible_s=60)) == ["a1"]
    assert await received(broker) == "b1"
    assert await received(broker) == "b2"


# Over restarts


@pytest.mark.parametrize("by_snapshot", [False, True])
@simulated
async def test_the_order_holds_over_a_restart(by_snapshot: bool) -> None:
    broker = await lite_broker()
    await send(broker, "a1 a2 b1")
    await subscribe(broker, "consumer", "a b")
    first = await broker.receive(invisible_s=30)
    assert ids(first) == ["a1", "b1"]
    await broker.ack(first[1])
    if by_snapshot:
        await broker.core.snapshots.take()
    await broker.crash()
    assert await received(broker) == ""  # who reads what is not kept
    await subscribe(broker, "consumer", "a b")
    assert await received(broker, wait_s=20) == ""
    (again,) = await broker.receive(wait_s=15)
    assert (*ids([again]), attempt(again)) == ("a1", 2)
    assert await broker.ack(again) == Code.OK
    assert await received(broker) == "a2"


@simulated
async def test_a_lease_of_a_push_consumer_has_one_grace_after_a_restart() -> None:
    broker = await lite_broker()
    await send(broker, "a1")
    broker.connect("consumer", LITE_PUSH)
    await subscribe(broker, "consumer", "a")
    (first,) = await broker.receive(auto_renew=True, invisible_s=None)
    await asyncio.sleep(300)
    assert await received(broker) == ""
    await broker.restart()
    broker.connect("consumer", LITE_PUSH)
    await subscribe(broker, "consumer", "a")
    assert await received(broker, wait_s=50) == ""
    (again,) = await broker.receive(wait_s=20)
    assert attempt(again) == 2
    assert await broker.ack(first) == Code.INVALID_RECEIPT_HANDLE


@simulated
async def test_an_expired_lite_topic_is_forgotten_by_its_group_and_can_come_again() -> None:
    broker = await lite_broker(topic={"lite_expiration_minutes": 15})
    await send(broker, "a1 a2")
    await subscribe(broker, "consumer", "a")
    (old,) = await broker.receive(invisible_s=3600)
    await asyncio.sleep(16 * 60)
    await broker.core.lite_store.sweep()
    assert await broker.ack(old) == Code.INVALID_RECEIPT_HANDLE
    await send(broker, "a3")
    await subscribe(broker, "consumer", "a")
    assert await received(broker) == "a3"


@simulated
async def test_what_is_held_outlives_the_retention_of_its_segment() -> None:
    broker = await lite_broker(retention_hours=1)
    await send(broker, "a1 a2 b1")
    await subscribe(broker, "consumer", "a b")
    held = await broker.receive(invisible_s=4 * 3600)
    assert ids(held) == ["a1", "b1"]
    for number in range(40):
        await broker.send(lite(str(number), "z", body=bytes(100_000)))
    await asyncio.sleep(2 * 3600)
    await broker.core.check_retention()
    queue = lite_topics(broker).by_name["a"].queue
    await until(lambda: queue.first_offset == 2)
    await broker.crash()
    await subscribe(broker, "consumer", "a b")
    assert await broker.ack(held[1]) == Code.OK
    await send(broker, "a3")
    assert await received(broker) == ""
    await asyncio.sleep(2 * 3600)
    await subscribe(broker, "consumer", "a b")
    (again,) = await broker.receive()
    assert (*ids([again]), attempt(again)) == ("a1", 2)
    assert await broker.ack(again) == Code.OK
    assert await received(broker) == "a3", "a2 was not read in time"


# Who reads what


@simulated
async def test_names_are_added_removed_and_replaced() -> None:
    broker = await lite_broker()
    await send(broker, "a1 b1 c1 d1")
    await subscribe(broker, "consumer", "a b")
    assert await sync(broker, "consumer", PARTIAL_REMOVE, "a x") == Code.OK
    assert await received(broker) == "b1"
    assert await sync(broker, "consumer", COMPLETE_ADD, "b c") == Code.OK
    assert await received(broker) == "c1"
    assert await sync(broker, "consumer", COMPLETE_ADD, "") == Code.OK
    await send(broker, "c2")
    assert await received(broker) == ""
    await subscribe(broker, "consumer", "d")
    assert await sync(broker, "consumer", COMPLETE_REMOVE, "") == Code.OK
    assert await received(broker) == ""
    interests = delivery(broker).interests
    assert (interests.pairs, dict(interests.clients), interests.last_synced) == (0, {}, {})


@simulated
async def test_many_share_a_lite_topic_and_each_message_goes_to_one_of_them() -> None:
    broker = await lite_broker()
    await send(broker, "a1 a2")
    for client in ("c1", "c2"):
        await subscribe(broker, client, "a")
    first = await broker.receive(client="c1")
    assert ids(first) == ["a1"]
    assert await received(broker, "c2") == ""
    await broker.ack(*first, client="c1")
    assert await received(broker, "c2") == "a2"


@simulated
async def test_in_an_exclusive_group_the_last_to_subscribe_has_it_and_the_other_is_told() -> None:
    broker = await lite_broker(lite={"exclusive": True})
    await send(broker, "a1")
    streams = {client: broker.connect(client, LITE_PUSH) for client in ("c1", "c2")}
    await until(lambda: len(broker.members()) == 2)
    await subscribe(broker, "c1", "a b")
    await subscribe(broker, "c1", "a")  # again: that evicts nobody
    await subscribe(broker, "c2", "a")
    await until(lambda: commands(streams["c1"].answers) == ["a"])
    assert await received(broker, "c1") == ""
    assert await received(broker, "c2") == "a1"
    # who does not listen is told again, and gets nothing
    assert await sync(broker, "c1", COMPLETE_ADD, "a b") == Code.OK
    await until(lambda: commands(streams["c1"].answers) == ["a", "a"])
    await send(broker, "a2 b1")
    assert await received(broker, "c1") == "b1"
    await subscribe(broker, "c1", "a")
    await until(lambda: commands(streams["c2"].answers) == ["a"])
    assert await received(broker, "c2") == ""
    assert await received(broker, "c1") == "a2"
    assert commands(streams["c1"].answers) == ["a", "a"]


@simulated
async def test_in_an_exclusive_group_a_free_lite_topic_goes_to_who_names_it() -> None:
    broker = await lite_broker(lite={"exclusive": True})
    await subscribe(broker, "c1", "a")
    await subscribe(broker, "c2", "a")
    assert await sync(broker, "c2", PARTIAL_REMOVE, "a") == Code.OK
    assert await sync(broker, "c1", COMPLETE_ADD, "a") == Code.OK
    await send(broker, "a1")
    assert await received(broker, "c1") == "a1"


@simulated
async def test_what_a_gone_client_held_goes_to_another_reader() -> None:
    broker = await lite_broker()
    await send(broker, "a1")
    for client in ("c1", "c2"):
        broker.connect(client, LITE_PUSH)
        await subscribe(broker, client, "a")
    assert ids(await broker.receive(client="c1", auto_renew=True, invisible_s=None)) == ["a1"]
    poll = asyncio.create_task(broker.receive(client="c2", wait_s=20))
    await asyncio.sleep(1)
    await broker.leave("c1")
    (again,) = await asyncio.wait_for(poll, 2)
    assert attempt(again) == 2
    assert list(delivery(broker).interests.clients) == ["c2"]


@simulated
async def test_a_client_whose_stream_broke_reads_nothing_after_some_seconds() -> None:
    broker = await lite_broker()
    stream = broker.connect("c1", LITE_PUSH)
    await subscribe(broker, "c1", "a")
    await asyncio.sleep(1)
    stream.cancel()
    await until(lambda: not delivery(broker).interests.clients, 10)


@simulated
async def test_what_a_client_does_not_say_again_is_dropped_after_three_minutes() -> None:
    broker = await lite_broker()
    broker.connect("c1", LITE_PUSH)
    broker.connect("c2", LITE_PUSH)
    for client in ("c1", "c2"):
        await subscribe(broker, client, "a")
    for _ in range(9):
        await asyncio.sleep(30)
        assert await sync(broker, "c2", COMPLETE_ADD, "a") == Code.OK
    assert list(delivery(broker).interests.clients) == ["c2"]


# Where a reader begins


def start(**fields: int) -> definition_pb2.OffsetOption:
    return definition_pb2.OffsetOption(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "next_"),
    [
        (start(), "a3"),
        (start(policy=definition_pb2.OffsetOption.LAST), "a3"),
        (start(policy=definition_pb2.OffsetOption.MIN), "a1"),
        (start(policy=definition_pb2.OffsetOption.MAX), ""),
        (start(offset=1), "a2"),
        (start(offset=99), ""),
        (start(offset=-5), "a1"),
        (start(tail_n=1), "a2"),
        (start(tail_n=99), "a1"),
        (start(timestamp=5), "a3"),
    ],
)
@simulated
async def test_where_a_group_goes_on(option: definition_pb2.OffsetOption, next_: str) -> None:
    broker = await lite_broker()
    await send(broker, "a1 a2 a3 a4")
    await subscribe(broker, "consumer", "a")
    assert await received(broker) == "a1"
    assert await received(broker) == "a2"
    assert await sync(broker, "c2", PARTIAL_ADD, "a", start=option) == Code.OK
    assert await received(broker, "c2") == next_


@simulated
async def test_a_reset_frees_a_lite_topic_whose_messages_are_lent() -> None:
    broker = await lite_broker()
    await send(broker, "a1 a2")
    await subscribe(broker, "consumer", "a")
    (held,) = await broker.receive(invisible_s=60)
    await subscribe(broker, "consumer", "a", start=start(policy=definition_pb2.OffsetOption.MIN))
    assert await broker.ack(held) == Code.INVALID_RECEIPT_HANDLE
    assert await received(broker) == "a1"


@simulated
async def test_without_progress_a_tail_has_no_meaning() -> None:
    broker = await lite_broker()
    await send(broker, "a1 a2")
    await subscribe(broker, "consumer", "a", start=start(tail_n=1))
    assert await received(broker) == "a1"


# What is refused


@simulated
async def test_where_to_start_that_cannot_be_recorded_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = await lite_broker(lite={"exclusive": True})
    await send(broker, "a1 b1 c1")
    await subscribe(broker, "other", "a")
    monkeypatch.setattr(Journal, "has_room", False)
    for names in (["c", "a"], ["a", "b"]):
        code = await sync(broker, "consumer", PARTIAL_ADD, names, start=start(policy=definition_pb2.OffsetOption.MAX))
        assert code == Code.INTERNAL_SERVER_ERROR
    interests = delivery(broker).interests
    assert {client: [*names] for client, names in interests.clients.items() if names} == {"other": ["a"]}


@simulated
async def test_names_that_cannot_be_are_refused_where_they_are_added() -> None:
    broker = await lite_broker()
    for name in ("", "a b", "x" * 65):
        assert await sync(broker, "consumer", PARTIAL_ADD, [name]) == Code.ILLEGAL_LITE_TOPIC
    assert not delivery(broker).interests.clients
    assert await sync(broker, "consumer", 9, "a") == Code.BAD_REQUEST


@simulated
async def test_a_client_reads_as_many_lite_topics_as_its_group_allows() -> None:
    broker = await lite_broker(lite={"subscription_quota": 2})
    await subscribe(broker, "consumer", "a b")
    await subscribe(broker, "consumer", "a")
    assert await sync(broker, "consumer", PARTIAL_ADD, "c") == Code.LITE_SUBSCRIPTION_QUOTA_EXCEEDED
    many = [f"n{number}" for number in range(303)]
    assert await sync(broker, "consumer", COMPLETE_ADD, many) == Code.LITE_SUBSCRIPTION_QUOTA_EXCEEDED
    assert list(delivery(broker).interests.names("consumer")) == ["a", "b"]


@simulated
async def test_all_clients_together_read_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite_subscriptions, "MAX_PAIRS", 3)
    broker = await lite_broker()
    assert await sync(broker, "c1", COMPLETE_ADD, ["a", "b", "no name"]) == Code.OK
    await subscribe(broker, "c2", "a")
    assert await sync(broker, "c2", PARTIAL_ADD, "b") == Code.LITE_SUBSCRIPTION_QUOTA_EXCEEDED
    assert await sync(broker, "c3", COMPLETE_ADD, "a") == Code.LITE_SUBSCRIPTION_QUOTA_EXCEEDED
    assert await sync(broker, "c1", COMPLETE_ADD, "b c") == Code.OK
    assert delivery(broker).interests.pairs == 3


@simulated
async def test_other_groups_topics_and_clients_are_refused() -> None:
    broker = await lite_broker()
    await broker.put_group("plain")
    await broker.put_topic("normal", 1)
    await broker.put_topic("more", 1, type=definition_pb2.LITE)
    assert await sync(broker, "c", PARTIAL_ADD, "a", group="plain") == Code.ILLEGAL_CONSUMER_GROUP
    await broker.receive(client="other", group="plain", topic="normal")
    assert await sync(broker, "other", PARTIAL_ADD, "a", group="plain") == Code.ILLEGAL_CONSUMER_GROUP
    assert await sync(broker, "other", PARTIAL_ADD, "a") == Code.ILLEGAL_CONSUMER_GROUP
    assert await sync(broker, "c", PARTIAL_ADD, "a", topic="more") == Code.ILLEGAL_TOPIC
    assert await sync(broker, "c", PARTIAL_ADD, "a", topic="normal") == Code.ILLEGAL_TOPIC
    assert await sync(broker, "c", PARTIAL_ADD, "a", topic="nothing") == Code.TOPIC_NOT_FOUND
    assert await sync(broker, "c", PARTIAL_ADD, "a", group="nobody") == Code.CONSUMER_GROUP_NOT_FOUND
    for group, topic, code in (
        ("plain", "orders", Code.ILLEGAL_CONSUMER_GROUP),
        ("team", "normal", Code.ILLEGAL_TOPIC),
        ("team", "more", Code.ILLEGAL_TOPIC),
    ):
        answers = await broker.receive_all(group=group, topic=topic)
        assert answers[0].status.code == code, (group, topic)


@pytest.mark.parametrize(
    ("type_", "group", "topic", "code"),
    [
        (definition_pb2.PUSH_CONSUMER, "team", "orders", Code.ILLEGAL_CONSUMER_GROUP),
        (definition_pb2.SIMPLE_CONSUMER, "team", "orders", Code.ILLEGAL_CONSUMER_GROUP),
        (definition_pb2.LITE_PUSH_CONSUMER, "plain", "orders", Code.ILLEGAL_CONSUMER_GROUP),
        (definition_pb2.LITE_SIMPLE_CONSUMER, "team", "more", Code.ILLEGAL_TOPIC),
    ],
)
@simulated
async def test_settings_of_the_wrong_client_end_its_stream(type_: int, group: str, topic: str, code: int) -> None:
    broker = await lite_broker()
    await broker.put_group("plain")
    await broker.put_topic("more", 1, type=definition_pb2.LITE)
    stream = broker.connect("c", type_, group, (topic,))
    await until(lambda: bool(stream.answers))
    assert service_pb2.TelemetryCommand.FromString(stream.answers[0]).status.code == code
    assert not broker.members(group)


@pytest.mark.parametrize(("quota", "told"), [(0, 2000), (7, 7)])
@simulated
async def test_the_settings_say_how_many_lite_topics_there_may_be(quota: int, told: int) -> None:
    broker = await lite_broker(lite={"subscription_quota": quota})
    stream = broker.connect("c", LITE_PUSH)
    await until(lambda: bool(stream.answers))
    settings = service_pb2.TelemetryCommand.FromString(stream.answers[0]).settings
    assert settings.subscription.lite_subscription_quota == told
    assert settings.subscription.max_lite_topic_size == 64


@simulated
async def test_a_group_stays_lite_or_not_for_good() -> None:
    broker = await lite_broker()
    await broker.put_topic("more", 1, type=definition_pb2.LITE)
    changed = record_pb2.LiteGroup(topic=resource("more"))
    assert (await broker.put_group("team", version=2, lite=changed)).status.code == Code.BAD_REQUEST
    assert (await broker.put_group("team", version=2)).status.code == Code.BAD_REQUEST
    assert (await broker.put_group("plain")).status.code == Code.OK
    assert (await broker.put_group("plain", version=2, lite=changed)).status.code == Code.BAD_REQUEST
    later = record_pb2.LiteGroup(topic=resource("more"))
    assert (await broker.put_group("late", lite=later, start=record_pb2.START_LAST)).status.code == Code.BAD_REQUEST
    for wrong in (record_pb2.LiteGroup(), record_pb2.LiteGroup(topic=resource("more"), subscription_quota=20_001)):
        assert (await broker.put_group("new", lite=wrong)).status.code == Code.BAD_REQUEST


@pytest.mark.parametrize("first", ["receive", "assignment", "heartbeat"])
@simulated
async def test_a_call_before_the_settings_makes_no_ordinary_group_of_a_lite_one(first: str) -> None:
    """As at a broker that is new: nobody can change the kind of a group later."""
    broker = await lite_broker(auto_create_groups=True)
    if first == "receive":
        await broker.receive_all(group="new")
    elif first == "assignment":
        await broker.assigned("consumer", group="new")
    else:
        beat = service_pb2.HeartbeatRequest(group=resource("new"), client_type=LITE_PUSH)
        answer = await broker.doors.call(service_rpc.HEARTBEAT, beat, {"x-mq-client-id": "consumer"})
        assert answer.status.code == Code.CONSUMER_GROUP_NOT_FOUND
    assert await sync(broker, "consumer", PARTIAL_ADD, "a", group="new") == Code.OK


@simulated
async def test_an_unknown_group_of_a_lite_consumer_is_made_as_a_lite_group() -> None:
    broker = await lite_broker(auto_create_groups=True)
    await send(broker, "a1")
    await subscribe(broker, "c", "a", group="made")
    assert broker.group("made").lite_topic == broker.group("team").lite_topic
    assert ids(await broker.receive(client="c", group="made")) == ["a1"]
    stream = broker.connect("d", definition_pb2.LITE_SIMPLE_CONSUMER, "other", ("orders",))
    await until(lambda: bool(stream.answers))
    assert broker.group("other").lite_topic is not None


@simulated
async def test_an_assignment_is_one_queue_of_each_broker() -> None:
    broker = await lite_broker()
    broker.connect("c", LITE_PUSH)
    await until(lambda: broker.members() == ["c"])
    assert await broker.assigned("c") == [-1]
    (client,) = broker.core.clients.members(broker.group().name)
    assert client.type == LITE_PUSH


# Seen from outside


async def described(broker: Broker, group: str | None = None) -> list[broker_pb2.Queue]:
    request = broker_pb2.DescribeQueuesRequest(group=resource(group) if group else None)
    answer = await broker.doors.call(broker_rpc.DESCRIBE_QUEUES, request, {})
    assert answer.status.code == Code.OK, answer.status
    return list(answer.queues)


@simulated
async def test_lite_topics_are_shown_as_one_queue_with_the_sum_of_what_a_group_has_left() -> None:
    broker = await lite_broker()
    await send(broker, "a1 a2 a3 b1 c1")
    (queue,) = await described(broker)
    assert (queue.id, queue.next_offset, list(queue.progress)) == (-1, 5, [])
    await subscribe(broker, "consumer", "a b")
    first = await broker.receive()
    await broker.ack(first[0])
    (queue,) = await described(broker, "team")
    (progress,) = queue.progress
    assert (progress.lag, progress.inflight) == (3, 1)
    (backlog,) = await broker.core.backlogs.measure()
    assert (backlog.lag, backlog.inflight) == (3, 1)


@simulated
async def test_a_lite_group_is_set_back_in_all_its_lite_topics() -> None:
    broker = await lite_broker()
    await send(broker, "a1 b1")
    await subscribe(broker, "consumer", "a b")
    assert await received(broker) == "a1 b1"
    request = broker_pb2.ResetOffsetRequest(group=resource("team"), topic=resource("orders"), first=True)
    answer = await broker.doors.call(broker_rpc.RESET_OFFSET, request, {})
    assert [moved.offset for moved in answer.offsets] == [0, 0]
    assert await received(broker) == "a1 b1"


# Many of them


@simulated
async def test_of_thousands_of_lite_topics_only_those_with_messages_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = await lite_broker()
    names = [f"n{number}" for number in range(1500)]
    for name in names:
        await broker.send(lite(f"{name}-1", name))
    assert await sync(broker, "consumer", COMPLETE_ADD, names) == Code.OK
    seen: list[Message] = []
    while messages := await broker.receive(batch_size=1000):
        seen += messages
        await broker.ack(*messages)
    assert sorted(ids(seen)) == sorted(f"{name}-1" for name in names)
    found: list[int] = []
    find = SectionReader.find
    monkeypatch.setattr(SectionReader, "find", lambda *args: found.append(args[1].id) or find(*args))
    poll = asyncio.create_task(broker.receive(wait_s=10))
    await asyncio.sleep(1)
    await broker.send(lite("new", "n700"))
    (message,) = await poll
    assert ids([message]) == ["new"]
    assert len(set(found)) == 1
    await broker.ack(message)
    assert await received(broker) == ""
    assert not any(delivery(broker)._ready.values())


@simulated
async def test_a_client_that_goes_while_its_messages_are_read_loses_nothing() -> None:
    broker = await lite_broker(cache_bytes=0)
    await send(broker, "a1")
    await subscribe(broker, "c1", "a")
    await subscribe(broker, "c2", "a")
    for _ in range(5):
        poll = asyncio.create_task(broker.receive(client="c1", wait_s=5))
        await asyncio.sleep(0)
        poll.cancel()
    (message,) = await broker.receive(client="c2", wait_s=5)
    assert ids([message]) == ["a1"]
