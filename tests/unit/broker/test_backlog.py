"""How far a group is behind: lag, what is lent, what can be had, and how old it is."""

import asyncio
from typing import Any

import pytest

from kourou_broker.operations import store_times
from kourou_broker.operations.backlog import Backlog
from tests.unit.broker.alone import Broker, handle, message, simulated

KIB = 1024


async def measured(broker: Broker) -> list[Backlog]:
    return await broker.core.backlogs.measure()


async def the_one(broker: Broker) -> Backlog:
    [backlog] = await measured(broker)
    assert (str(backlog.group.name), str(backlog.topic.name)) == ("team", "orders")
    return backlog


def counts(backlog: Backlog) -> tuple[int, int]:
    """-> lag, in flight."""
    return backlog.lag, backlog.inflight


def ages_s(broker: Broker, backlog: Backlog) -> tuple[float | None, float | None]:
    """-> of the oldest, of the oldest that can be had; rounded."""
    now_ms = broker.now_ms()

    def age_s(stored_ms: int | None) -> float | None:
        return None if stored_ms is None else round((now_ms - stored_ms) / 1000)

    return age_s(backlog.oldest_ms), age_s(backlog.oldest_ready_ms)


@simulated
async def test_nothing_is_behind_where_nobody_reads() -> None:
    broker = await Broker.started()
    await broker.send_ids("a")
    assert await measured(broker) == []


@simulated
async def test_what_is_lent_is_in_flight_until_it_is_acknowledged() -> None:
    broker = await Broker.started()
    await broker.send_ids("a", "b", "c")
    received = await broker.receive(batch_size=2, invisible_s=60)
    assert counts(await the_one(broker)) == (3, 2)
    await broker.ack(received[0])
    assert counts(await the_one(broker)) == (2, 1)
    await broker.ack(received[1])
    await broker.ack(*await broker.receive())
    backlog = await the_one(broker)
    assert counts(backlog) == (0, 0)
    assert ages_s(broker, backlog) == (None, None)


@simulated
async def test_what_is_due_again_is_not_in_flight() -> None:
    broker = await Broker.started()
    await broker.send_ids("a", "b")
    await broker.receive(batch_size=1, invisible_s=10)
    await broker.receive(batch_size=1, invisible_s=60)
    await asyncio.sleep(20)
    assert counts(await the_one(broker)) == (2, 1)


@simulated
async def test_ages_are_those_of_the_oldest_and_of_the_oldest_that_can_be_had() -> None:
    broker = await Broker.started()
    for id_ in ("a", "b", "c"):
        await broker.send_ids(id_)
        await asyncio.sleep(10)
    await broker.receive(batch_size=1, invisible_s=5)
    await broker.receive(batch_size=1, invisible_s=100)
    assert ages_s(broker, await the_one(broker)) == (30, 10), "a and b are lent, c is fresh"
    await asyncio.sleep(6)
    assert ages_s(broker, await the_one(broker)) == (36, 36), "a is due"


@simulated
async def test_a_renewed_lease_is_in_flight_as_long_as_its_client_lives() -> None:
    broker = await Broker.started(client_silence_s=1e6)
    await broker.send_ids("a")
    stream = broker.connect("consumer")
    await broker.receive(queue=0, auto_renew=True, invisible_s=5)
    await asyncio.sleep(60)
    assert counts(await the_one(broker)) == (1, 1)
    stream.cancel()
    await broker.leave("consumer")
    assert counts(await the_one(broker)) == (1, 0)


@simulated
async def test_queues_that_were_never_read_count_from_their_beginning() -> None:
    broker = await Broker.started(queues=4)
    for number in range(4):
        await broker.send_ids(f"{number}a", f"{number}b")
        await asyncio.sleep(10)
    await broker.receive(batch_size=2)
    backlog = await the_one(broker)
    assert counts(backlog) == (8, 2)
    assert backlog.queues < 4
    assert ages_s(broker, backlog)[0] == 40


@simulated
async def test_queues_at_the_limit_are_counted() -> None:
    broker = await Broker.started(max_pending_messages=2)
    await broker.send_ids("a", "b", "c")
    received = await broker.receive(batch_size=2)
    assert (await the_one(broker)).full_queues == 1
    await broker.ack(received[0])
    assert (await the_one(broker)).full_queues == 0


@simulated
async def test_after_a_restart_the_numbers_are_the_same() -> None:
    broker = await Broker.started()
    await broker.send_ids("a", "b", "c")
    await broker.receive(batch_size=2, invisible_s=100)
    await asyncio.sleep(10)
    before = await the_one(broker)
    await broker.restart()
    after = await the_one(broker)
    assert counts(after) == counts(before) == (3, 2)
    assert (after.oldest_ms, after.oldest_ready_ms) == (before.oldest_ms, before.oldest_ready_ms)


@simulated
async def test_each_group_and_topic_has_its_own() -> None:
    broker = await Broker.started()
    await broker.put_group("other")
    await broker.put_topic("letters")
    await broker.send_ids("a", "b")
    await broker.send_ids("c", topic="letters")
    await broker.ack(*await broker.receive(batch_size=1))
    await broker.receive(group="other")
    await broker.receive(group="other", topic="letters")
    found = {(each.group.name.name, each.topic.name.name): counts(each) for each in await measured(broker)}
    assert found == {("team", "orders"): (1, 0), ("other", "orders"): (2, 2), ("other", "letters"): (1, 1)}
    await broker.put_group("other", version=2, deleted=True)
    assert len(await measured(broker)) == 1


async def _filled(**settings: Any) -> Broker:
    """100 messages of 1 KiB, one a second, in segments of 16 KiB."""
    broker = await Broker.started(segment_bytes=16 * KIB, **settings)
    for number in range(100):
        await broker.send(message(bytes(1000), f"m{number}"))
        await asyncio.sleep(1)
    return broker


@simulated
async def test_old_messages_are_dated_by_the_index_of_their_segment() -> None:
    broker = await _filled()
    await broker.receive(batch_size=1, invisible_s=1)
    for _ in range(2):
        assert round((broker.now_ms() - ((await the_one(broker)).oldest_ms or 0)) / 1000) in (100, 101)
    assert (await the_one(broker)).lag == 100


@simulated
async def test_dating_has_its_limit_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left for a later round is at least as old as it is said to be."""
    broker = await _filled()
    await broker.receive(batch_size=1, invisible_s=1)
    monkeypatch.setattr(store_times, "_LOOKING_S", 0.0)
    oldest_ms = (await the_one(broker)).oldest_ms
    assert oldest_ms == broker.core.log.segments()[-1].first_stored_ms
    monkeypatch.undo()
    found_ms = (await the_one(broker)).oldest_ms
    assert found_ms is not None
    assert oldest_ms is not None
    assert found_ms < oldest_ms
    monkeypatch.setattr(store_times, "_LOOKING_S", 0.0)
    assert (await the_one(broker)).oldest_ms == found_ms, "it was forgotten"


@simulated
async def test_a_message_that_was_carried_forward_keeps_its_age() -> None:
    broker = await _filled(retention_bytes=48 * KIB, snapshot_every_bytes=16 * KIB, retention_interval_s=1e6)
    (received,) = await broker.receive(batch_size=1, invisible_s=10_000)
    stored_ms = received.system_properties.store_timestamp.ToMilliseconds()
    for _ in range(3):
        await broker.shard.process.start(broker.core.check_retention())
        for number in range(15):
            await broker.send(message(bytes(1000), f"n{number}"))
    await broker.shard.process.start(broker.core.check_retention())
    assert broker.core.state.topics_by_id[1].queues[0].carried
    assert (await the_one(broker)).oldest_ms == stored_ms
    assert await broker.ack_all(handle(received)) is not None
    assert (await the_one(broker)).oldest_ms != stored_ms
