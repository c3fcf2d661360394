"""Lite topics: made by their first message, kept over restarts, gone when nothing came for long."""

import asyncio
from typing import Any

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.state import fold, snapshot
from kourou_broker.state.lite import FIRST_LITE_QUEUE
from tests.unit.broker.alone import MIB, Broker, message, simulated, until
from tests.unit.broker.lite import Code, lite, lite_broker, lite_topics, names, send

MINUTE_S = 60


async def swept(broker: Broker) -> None:
    await broker.core.lite_store.sweep()


@simulated
async def test_the_first_message_makes_a_lite_topic_with_offsets_of_its_own() -> None:
    broker = await lite_broker()
    offsets = []
    for id_ in ("a1", "b1", "a2"):
        answer = await broker.send(lite(id_))
        offsets.append(answer.entries[0].offset)
    assert offsets == [0, 0, 1]
    assert names(broker) == "a b"
    found, _next = await broker.pull(queue=lite_topics(broker).by_name["a"].queue.id)
    assert [(each.system_properties.message_id, each.system_properties.lite_topic) for each in found] == [
        ("a1", "a"),
        ("a2", "a"),
    ]
    assert found[0].topic.name == "orders"


@simulated
async def test_lite_queues_are_no_queues_of_the_route() -> None:
    broker = await lite_broker()
    await send(broker, "a1 b1")
    topic = next(iter(broker.core.state.topics.values()))
    assert [queue.id for queue in topic.queues] == [0]
    assert [queue.id for queue in topic.all_queues()] == [0, FIRST_LITE_QUEUE, FIRST_LITE_QUEUE + 1]


@pytest.mark.parametrize("name", ["", "a b", "ä", "a" * 65, "a%b", "a\n"])
@simulated
async def test_a_name_that_no_lite_topic_can_have_is_refused(name: str) -> None:
    broker = await lite_broker()
    answer = await broker.send(message(lite_topic=name, message_type=definition_pb2.LITE))
    assert answer.status.code == Code.ILLEGAL_LITE_TOPIC
    assert names(broker) == ""


@simulated
async def test_the_longest_name_and_all_its_characters_are_taken() -> None:
    broker = await lite_broker()
    assert (await broker.send(lite("1", "aZ09_-" + "x" * 58))).status.code == Code.OK


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"message_type": definition_pb2.NORMAL},
        {"message_type": definition_pb2.LITE},
        {"message_type": definition_pb2.LITE, "lite_topic": "a", "message_group": "g"},
        {"message_type": definition_pb2.LITE, "lite_topic": "a", "priority": 1},
    ],
)
@simulated
async def test_a_message_of_another_type_is_refused(fields: dict[str, Any]) -> None:
    broker = await lite_broker()
    answer = await broker.send(message(**fields))
    assert answer.status.code == Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE
    assert names(broker) == ""


@simulated
async def test_a_lite_message_to_another_topic_is_refused() -> None:
    broker = await Broker.started()
    assert (await broker.send(lite("a1"))).status.code == Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE


@simulated
async def test_the_messages_of_one_request_have_one_lite_topic() -> None:
    broker = await lite_broker()
    assert (await broker.send(lite("a1"), lite("b1"))).status.code == Code.BAD_REQUEST
    assert names(broker) == ""
    answer = await broker.send(lite("a1"), lite("a2"))
    assert [entry.offset for entry in answer.entries] == [0, 1]


@simulated
async def test_a_lite_topic_too_many_is_refused_and_the_others_go_on() -> None:
    broker = await lite_broker(max_lite_topics=2)
    await send(broker, "a1 b1")
    assert (await broker.send(lite("c1"))).status.code == Code.LITE_TOPIC_QUOTA_EXCEEDED
    await send(broker, "a2")
    await broker.restart()
    assert (await broker.send(lite("c1"))).status.code == Code.LITE_TOPIC_QUOTA_EXCEEDED


@simulated
async def test_a_message_that_cannot_be_stored_makes_no_lite_topic() -> None:
    broker = await lite_broker()
    big = lite("a1", body=bytes(MIB))
    assert (await broker.send(big)).status.code == Code.PAYLOAD_TOO_LARGE
    assert names(broker) == ""


@simulated
async def test_lite_topics_outlive_a_crash_and_a_snapshot() -> None:
    broker = await lite_broker()
    await send(broker, "a1 b1 a2")
    before = snapshot.encode(broker.core.state, 0)
    await broker.crash()
    assert snapshot.encode(broker.core.state, 0) == before
    await broker.core.snapshots.take()
    await broker.restart()
    assert snapshot.encode(broker.core.state, 0) == before
    answer = await broker.send(lite("a3"))
    assert answer.entries[0].offset == 2
    assert broker.core.state.lite_topics == 2


@simulated
async def test_a_lite_topic_without_new_messages_goes_and_its_name_begins_anew() -> None:
    broker = await lite_broker(topic={"lite_expiration_minutes": 15})
    await send(broker, "a1 b1")
    await asyncio.sleep(10 * MINUTE_S)
    await send(broker, "b2")
    await until(lambda: names(broker) == "b", 8 * MINUTE_S)
    await until(lambda: names(broker) == "", 12 * MINUTE_S)
    assert broker.core.state.lite_topics == 0
    old = lite_topics(broker).queues[0]
    assert (old.first_offset, old.next_offset) == (1, 1)
    answer = await broker.send(lite("c1"))  # it takes the queue over, and goes on after what lay there
    assert answer.entries[0].offset == 1
    assert lite_topics(broker).by_name["c"].queue is old
    assert (await broker.pull(queue=old.id, offset=1))[0][0].system_properties.message_id == "c1"


@pytest.mark.parametrize("by_snapshot", [False, True])
@simulated
async def test_what_expired_stays_so_over_a_restart(by_snapshot: bool) -> None:
    broker = await lite_broker(topic={"lite_expiration_minutes": 15})
    await send(broker, "a1 a2 b1")
    await asyncio.sleep(10 * MINUTE_S)
    await send(broker, "b2")
    await asyncio.sleep(6 * MINUTE_S)
    await swept(broker)
    assert names(broker) == "b"
    if by_snapshot:
        await broker.core.snapshots.take()
    await broker.crash()
    assert names(broker) == "b"
    answer = await broker.send(lite("c1"))
    assert answer.entries[0].offset == 2
    assert broker.core.state.lite_topics == 2


@simulated
async def test_without_a_time_lite_topics_stay_for_ever() -> None:
    broker = await lite_broker()
    await send(broker, "a1")
    await asyncio.sleep(60 * MINUTE_S)
    await swept(broker)
    assert names(broker) == "a"


@simulated
async def test_after_a_restart_the_log_tells_when_the_last_message_came() -> None:
    broker = await lite_broker(topic={"lite_expiration_minutes": 15})
    await send(broker, "a1")
    await asyncio.sleep(14 * MINUTE_S)
    await send(broker, "a2")
    await broker.restart()
    await asyncio.sleep(14 * MINUTE_S)
    await swept(broker)
    assert names(broker) == "a"
    await asyncio.sleep(2 * MINUTE_S)
    await swept(broker)
    assert names(broker) == ""


@simulated
async def test_when_retention_took_the_last_message_the_lite_topic_is_as_old_as_before() -> None:
    broker = await lite_broker(topic={"lite_expiration_minutes": 240}, retention_hours=1)
    await send(broker, "a1")
    await asyncio.sleep(60 * MINUTE_S)
    await send(broker, "a2")
    queue = lite_topics(broker).by_name["a"].queue
    for number in range(40):
        await broker.send(lite(str(number), "z", body=bytes(100_000)))
    await asyncio.sleep(70 * MINUTE_S)
    await broker.core.check_retention()
    await until(lambda: queue.first_offset == 2)
    await swept(broker)
    await broker.restart()
    await asyncio.sleep(169 * MINUTE_S)  # of the 240, 239 are over
    await swept(broker)
    assert "a" in names(broker)
    await asyncio.sleep(2 * MINUTE_S)
    await swept(broker)
    assert "a" not in names(broker)


@pytest.mark.parametrize(
    ("type_", "minutes"), [(definition_pb2.NORMAL, 60), (definition_pb2.LITE, 14), (definition_pb2.LITE, 43201)]
)
@simulated
async def test_an_expiration_out_of_bounds_is_refused(type_: int, minutes: int) -> None:
    broker = await lite_broker()
    answer = await broker.put_topic("other", type=type_, lite_expiration_minutes=minutes)
    assert answer.status.code == Code.BAD_REQUEST


@simulated
async def test_a_deleted_topic_takes_its_lite_topics_along() -> None:
    broker = await lite_broker()
    await send(broker, "a1 b1")
    await broker.put_topic("orders", version=2, deleted=True)
    assert broker.core.state.lite_topics == 0
    await broker.put_topic("orders", 1, version=3, type=definition_pb2.LITE)
    assert names(broker) == ""
    assert (await broker.send(lite("a1"))).entries[0].offset == 0
    await broker.crash()
    assert broker.core.state.lite_topics == 1


@simulated
async def test_a_snapshot_made_from_the_segments_alone_is_the_state() -> None:
    broker = await lite_broker(topic={"lite_expiration_minutes": 15})
    await send(broker, "a1 b1")
    await asyncio.sleep(20 * MINUTE_S)
    await swept(broker)
    await send(broker, "c1")
    for number in range(20):
        await broker.send(lite(str(number), "z", body=bytes(100_000)))
    position = broker.core.log.segments()[-1].base
    folded, at = snapshot.decode(fold.snapshot_at(broker.core.medium, position))
    assert at == position
    assert folded.lite_topics == 2
    ours = next(iter(broker.core.state.topics.values())).lite
    theirs = next(iter(folded.topics.values())).lite
    assert ours is not None
    assert theirs is not None
    assert (theirs.by_name.keys(), theirs.free) == (ours.by_name.keys(), ours.free)
