"""Old segments go, what somebody still holds stays."""

import asyncio
from typing import Any

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations import retention
from kourou_broker.state import fold
from tests.unit.broker.alone import Broker, attempt, handle, ids, message, simulated

Code = definition_pb2.Code
KIB = 1024


async def _broker(queues: int = 1, **settings: Any) -> Broker:
    fields: dict[str, Any] = {
        "segment_bytes": 16 * KIB,
        "snapshot_every_bytes": 16 * KIB,
        "retention_interval_s": 1_000_000,
        "retention_hours": 0,
        "retention_bytes": 0,
        **settings,
    }
    return await Broker.started(queues=queues, **fields)


async def _fill(broker: Broker, messages: int, first: int = 0) -> None:
    for number in range(first, first + messages):
        assert (await broker.send(message(bytes(1000), f"m{number}"))).status.code == Code.OK


async def _first(broker: Broker) -> int:
    return (await broker.query_offset(definition_pb2.BEGINNING)).offset


async def _drop(broker: Broker) -> None:
    """Nothing goes that the older of two snapshots needs, and each of them stands at the end of another segment."""
    for _ in range(3):
        await broker.shard.process.start(broker.core.check_retention())
        await _fill(broker, 15, 10_000)
    await broker.shard.process.start(broker.core.check_retention())


@simulated
async def test_by_size_the_oldest_segments_go() -> None:
    broker = await _broker(retention_bytes=48 * KIB)
    await _fill(broker, 100)
    await _drop(broker)
    first = await _first(broker)
    assert 40 < first < 130
    assert broker.core.log.next_position - broker.core.log.first_position <= (48 + 3 * 16) * KIB
    (answer,) = await broker.pull_all(offset=first - 1)
    assert answer.status.code == Code.ILLEGAL_OFFSET
    pulled, _ = await broker.pull(offset=first)
    assert pulled[0].system_properties.queue_offset == first
    (received,) = await broker.receive(batch_size=1)
    assert received.system_properties.queue_offset == first, "a new group starts at the earliest message"


@simulated
async def test_they_go_when_nothing_more_is_sent() -> None:
    """Two snapshots must differ, also where the log stands still; a start from either finds everything."""
    broker = await _broker(retention_bytes=48 * KIB)
    await _fill(broker, 100)
    await broker.shard.process.start(broker.core.check_retention())
    assert broker.core.log.next_position - broker.core.log.first_position <= (48 + 2 * 16) * KIB
    first = await _first(broker)
    assert first > 20
    await broker.crash()
    assert await _first(broker) == first
    newest, _older = fold.snapshots(broker.core.medium)
    broker.core.medium.drop_blob(fold.snapshot_name(newest))
    await broker.crash()
    assert await _first(broker) == first
    assert (await broker.pull(offset=first))[0][0].system_properties.queue_offset == first


@simulated
async def test_by_age_the_oldest_segments_go() -> None:
    broker = await _broker(retention_hours=1)
    await _fill(broker, 50)
    await asyncio.sleep(3000)
    await _fill(broker, 50, 50)
    await _drop(broker)
    assert await _first(broker) == 0
    await asyncio.sleep(1000)
    await _drop(broker)
    assert 30 < await _first(broker) <= 50


@simulated
async def test_without_limits_nothing_goes() -> None:
    broker = await _broker()
    await _fill(broker, 100)
    await asyncio.sleep(5000)
    await _drop(broker)
    assert await _first(broker) == 0


@simulated
async def test_what_is_pending_is_carried_forward_again_and_again() -> None:
    broker = await _broker(retention_bytes=32 * KIB)
    await _fill(broker, 10)
    held = await broker.receive(batch_size=10, invisible_s=3600)
    await broker.ack(*held[5:])
    for round_ in range(1, 5):
        await _fill(broker, 60, round_ * 100)
        await _drop(broker)
        if round_ == 2:
            await broker.crash()
    assert await _first(broker) > 10
    assert await broker.ack(held[0]) == Code.OK
    for _ in range(2):
        await broker.change(handle(held[1]), 0)
        await broker.set_offset(await _first(broker) + 10_000)  # refused, and changes nothing
        again = [one for one in await broker.receive(batch_size=1) if ids([one]) == ["m1"]]
        assert [(attempt(one), len(one.body)) for one in again] == [(attempt(held[1]) + 1, 1000)]
        assert again[0].system_properties.store_timestamp == held[1].system_properties.store_timestamp
        held[1] = again[0]
        await asyncio.sleep(1)
        await broker.crash()
    await asyncio.sleep(3600)
    rest = await broker.receive(batch_size=4)
    assert sorted(ids(rest)) == ["m1", "m2", "m3", "m4"]


@simulated
async def test_what_is_lent_while_retention_works_is_not_lost() -> None:
    broker = await _broker(retention_bytes=32 * KIB, cache_bytes=0, queues=4)
    await _fill(broker, 120)
    await broker.receive(batch_size=8, invisible_s=3600)
    dropping = broker.shard.process.start(broker.core.check_retention())
    lent: list[Any] = []
    while not dropping.done():
        lent += await broker.receive(batch_size=1, invisible_s=5)
        await asyncio.sleep(0.002)  # simulated: without it retention's reads would never get their time
    await dropping
    first = max([(await broker.query_offset(definition_pb2.BEGINNING, queue=queue)).offset for queue in range(4)])
    assert min(one.system_properties.queue_offset for one in lent) < first, "the test lent nothing that went"
    await asyncio.sleep(10)
    again: set[str] = set()
    while received := await broker.receive(batch_size=32, invisible_s=60, wait_s=1):
        again.update(ids(received))
        await broker.ack(*received)
    assert again.issuperset(ids(lent))


@simulated
async def test_a_dead_letter_of_a_carried_message_has_its_body() -> None:
    broker = await _broker(retention_bytes=32 * KIB)
    await _fill(broker, 3)
    held = await broker.receive(invisible_s=3600)
    await _fill(broker, 100, 3)
    await _drop(broker)
    assert await _first(broker) > 3
    assert await broker.forward(handle(held[2])) == Code.OK
    (letter,) = await broker.dead_letters()
    assert (ids([letter]), len(letter.body)) == (["m2"], 1000)


@simulated
async def test_a_start_needs_only_the_newest_snapshot() -> None:
    broker = await _broker(retention_bytes=64 * KIB)
    await _fill(broker, 150)
    await broker.ack(*await broker.receive(batch_size=60))
    await _drop(broker)
    await broker.set_offset(await _first(broker) + 3)
    await broker.shard.stop()
    snapshots = sorted(name for name in broker.shard.disk.blobs if name.startswith("snapshot-"))
    assert len(snapshots) == 2
    await broker.shard.start()
    await broker.shard.stop()
    newest = broker.shard.disk.blobs[snapshots[1]]
    broker.shard.disk.blobs[snapshots[1]] = newest[:-1] + bytes([newest[-1] ^ 1])
    await broker.shard.start()
    assert (await broker.offset()).offset == await _first(broker) + 3, (
        "a damaged snapshot is passed over for the one before"
    )


@simulated
async def test_a_topic_that_came_after_what_goes_keeps_its_messages() -> None:
    broker = await _broker(retention_bytes=48 * KIB)
    await _fill(broker, 100)
    await broker.put_topic("late")
    await broker.send_ids("late-1", "late-2", topic="late")
    await broker.shard.process.start(broker.core.check_retention())
    await _fill(broker, 15, 200)
    await broker.shard.process.start(broker.core.check_retention())
    assert await _first(broker) > 0, "the test dropped nothing"
    assert (await broker.query_offset(definition_pb2.BEGINNING, topic="late")).offset == 0
    assert ids(await broker.receive(topic="late")) == ["late-1", "late-2"]


def _held(broker: Broker) -> dict[int, tuple[Any, ...]]:
    """By queue: where it begins and ends, what was carried, and what the group holds."""
    state = broker.core.state
    (topic,) = (topic for topic in state.topics.values() if topic.name.name == "orders")
    (progress,) = {group: [*state.progress_of(group, topic)] for group in state.groups.values()}.values()
    held = {one.queue: (one.high, one.pending.keys()) for one in progress}
    return {
        queue.id: (queue.first_offset, queue.next_offset, queue.carried, held.get(queue.id)) for queue in topic.queues
    }


@simulated
async def test_queues_go_some_at_a_time_and_nothing_that_is_held_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_TRIMMED_A_TURN", 1)
    broker = await _broker(queues=3, retention_bytes=32 * KIB)
    await _fill(broker, 30)
    held = await broker.receive(batch_size=12, invisible_s=3600)
    await _fill(broker, 60, 100)
    first_drop = broker.shard.process.start(broker.core.check_retention())
    held += await broker.receive(batch_size=12, invisible_s=3600)
    await first_drop
    await _drop(broker)
    before = _held(broker)
    assert all(first for first, *_rest in before.values()), "the test dropped nothing"
    await broker.crash()
    assert _held(broker) == before
    for message_ in held:
        assert await broker.forward(handle(message_)) == Code.OK
    assert sorted(ids(await broker.dead_letters())) == sorted(ids(held))
