"""Each sealed segment is indexed soon, without a question; what is missing after a start is made up for."""

from collections.abc import Callable

from kourou_broker.log.history_index import history_blob
from kourou_broker.log.key_index import key_index_blob
from tests.unit.broker.alone import MIB, Broker, message, simulated, until


async def fill(broker: Broker, segments: int) -> None:
    """Until so many segments are sealed."""
    number = 0
    while len(broker.core.log.segments()) <= segments:
        await broker.send(message(b"x" * 200_000, id_=f"fill-{number}"))
        number += 1


def wanted(broker: Broker) -> set[str]:
    sealed = [segment.base for segment in broker.core.log.segments() if segment.sealed]
    return {blob(base) for base in sealed for blob in (key_index_blob, history_blob)}


def indexes(broker: Broker) -> set[str]:
    return {name for name in broker.shard.disk.blobs if name.startswith(("keys-", "history-"))}


def are_there(broker: Broker) -> Callable[[], bool]:
    return lambda: indexes(broker) == wanted(broker)


@simulated
async def test_they_come_with_the_sealing() -> None:
    broker = await Broker.started()
    await fill(broker, 3)
    await until(are_there(broker), within_s=3)
    assert len(wanted(broker)) == 6


@simulated
async def test_missing_and_damaged_ones_are_made_up_for_after_a_start() -> None:
    broker = await Broker.started()
    await fill(broker, 3)
    await until(are_there(broker))
    whole = {name: broker.shard.disk.blobs[name] for name in wanted(broker)}
    first, second, *_ = sorted(whole)
    del broker.shard.disk.blobs[first]
    broker.shard.disk.blobs[second] = b"\0" + whole[second][1:]
    await broker.restart()
    await until(lambda: {name: broker.shard.disk.blobs.get(name) for name in whole} == whole)


@simulated
async def test_they_go_with_their_segment() -> None:
    broker = await Broker.started(retention_bytes=MIB, snapshot_every_bytes=MIB)
    await fill(broker, 4)
    await until(are_there(broker))
    before = len(indexes(broker))
    await broker.core.check_retention()
    assert len(wanted(broker)) < before
    assert indexes(broker) == wanted(broker)


@simulated
async def test_what_is_built_for_a_segment_that_goes_meanwhile_does_not_stay() -> None:
    broker = await Broker.started(retention_bytes=MIB, snapshot_every_bytes=MIB)
    await fill(broker, 4)
    await until(are_there(broker))
    indexing = broker.core.indexing
    gone = broker.core.log.first_position
    saved = {name: broker.shard.disk.blobs[name] for name in (key_index_blob(gone), history_blob(gone))}

    async def index(base: int) -> None:
        """It is slow: the segment is dropped before the blobs are written."""
        if base == gone:
            await broker.core.check_retention()
            broker.shard.disk.blobs.update(saved)

    indexing._index = index  # pyright: ignore[reportPrivateUsage]
    indexing._indexed.clear()  # pyright: ignore[reportPrivateUsage]
    await indexing.check()
    assert broker.core.log.first_position > gone
    assert indexes(broker) == wanted(broker)


@simulated
async def test_a_full_disk_is_not_filled_further() -> None:
    broker = await Broker.started(disk_watermark_bytes=MIB)
    await fill(broker, 2)
    await until(are_there(broker))
    disk, log = broker.shard.disk, broker.core.log
    room = disk.capacity_bytes
    disk.capacity_bytes = disk.used_bytes()
    await until(lambda: not log.writable_messages)
    for name in indexes(broker):
        del disk.blobs[name]
    broker.core.indexing._indexed.clear()  # pyright: ignore[reportPrivateUsage]
    await broker.core.indexing.check()
    assert indexes(broker) == set()
    disk.capacity_bytes = room
    await until(lambda: log.writable_messages)
    await broker.core.indexing.check()
    assert indexes(broker) == wanted(broker)
