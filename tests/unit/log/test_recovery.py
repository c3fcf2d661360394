"""What recovery makes of a log that is not as it was left."""

import asyncio
import copy
import random

import pytest

from kourou_broker.log.checksum import value
from kourou_broker.log.errors import DamagedLog, DataLocked, LogError, MissingLog, NewerFormat
from kourou_broker.log.frame import FORMAT_VERSION
from tests.simulation.disk import SimMedium
from tests.simulation.time import simulate
from tests.unit.log.logs import SEGMENT_BYTES, LogOnDisk, fill, record, settled


async def _small_log(on: LogOnDisk) -> None:
    """Three frames and the mark of a clean end."""
    log = on.open()
    for payload in (b"one", b"two", b"three"):
        log.append([record(payload)], 1)
        await settled(log)
    await log.close()


def test_each_flipped_byte_is_found_or_harmless() -> None:
    async def main() -> None:
        on = LogOnDisk()
        await _small_log(on)
        disk = copy.deepcopy(on.disk)
        mark = on.log.next_position - 48
        for offset in range(on.log.next_position + 10):
            for mask in (1, 128):
                on.disk = copy.deepcopy(disk)
                on.disk.flip(0, offset, mask)
                if offset < mark:
                    with pytest.raises(DamagedLog) as refused:
                        on.open()
                    assert refused.value.position <= offset
                    assert "kourou log repair --data" in str(refused.value)
                else:
                    # The mark itself, or behind the end: cut.
                    on.open()
                    assert on.payloads() == [b"one", b"two", b"three"]

    simulate(main())


def test_damage_in_a_sealed_segment_is_refused_and_changes_nothing() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open()
        await fill(log, 60)
        await log.close()
        base = log.segments()[2].base
        on.disk.flip(base, 100)
        for indexes in (True, False):
            if not indexes:
                on.disk.blobs.clear()
            before = {base: bytes(segment.durable) for base, segment in on.disk.segments.items()}
            with pytest.raises(DamagedLog) as refused:
                on.open()
            assert refused.value.segment == f"{base:016x}"
            assert refused.value.position == base
            assert before == {base: bytes(segment.durable) for base, segment in on.disk.segments.items()}

    simulate(main())


def test_a_missing_segment_is_damage() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open()
        await fill(log, 60)
        await log.close()
        del on.disk.segments[log.segments()[2].base]
        with pytest.raises(DamagedLog, match="durable up to"):
            on.open()

    simulate(main())


def test_a_torn_tail_is_cut_and_nothing_of_it_comes_back() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open(idle_mark_after_s=1000)
        log.append([record(b"one")], 1)
        await settled(log)
        # The last group was written, never synced: its first frame is torn, the second is whole.
        on.disk.sync_error = OSError("broken")
        torn = log.append([record(b"two")], 1)
        log.append([record(b"three")], 1)
        await asyncio.sleep(0.1)
        on.disk.sync_error = None
        on.disk.flip(0, torn.position + 60)
        log = on.open()
        assert on.payloads() == [b"one"]
        assert log.next_position == torn.position
        assert bytes(on.disk.segments[0].durable[torn.position :]) == bytes(SEGMENT_BYTES - torn.position)
        log.append([record(b"again")], 1)
        await log.close()
        on.open()
        assert on.payloads() == [b"one", b"again"]

    simulate(main())


def test_what_a_killed_process_left_in_the_page_cache_is_made_durable() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open(flush="async", flush_interval_ms=1_000_000)
        await fill(log, 30)
        on.open()
        on.disk.cut_power()
        on.open()
        assert len(on.payloads()) == 30

    simulate(main())


@pytest.mark.parametrize("rest_is_valid", [True, False])
def test_a_newer_format_is_refused(rest_is_valid: bool) -> None:
    async def main() -> None:
        on = LogOnDisk()
        await _small_log(on)
        cache = on.disk.segments[0].cache
        position = on.frames[0].position if on.frames else 0
        total = int.from_bytes(cache[12:16], "little")
        cache[position + 8] = FORMAT_VERSION + 1
        if rest_is_valid:
            cache[position + 4 : position + 8] = value(bytes(cache[position + 8 : position + total])).to_bytes(
                4, "little"
            )
        with pytest.raises(NewerFormat if rest_is_valid else DamagedLog):
            on.open()

    simulate(main())


def test_a_log_that_does_not_reach_the_snapshot_is_refused() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open()
        await fill(log, 60)
        await log.drop_before(log.segments()[1].base)
        await log.close()
        with pytest.raises(MissingLog):
            on.open(start=0)
        with pytest.raises(DamagedLog, match="ends here"):
            on.open(start=log.next_position + 1000)
        with pytest.raises(DamagedLog, match="no frame begins"):
            on.open(start=log.first_position + 1)
        on.disk.segments.clear()
        with pytest.raises(MissingLog):
            on.open(start=100)

    simulate(main())


def test_a_second_process_is_refused() -> None:
    async def main() -> None:
        on = LogOnDisk()
        on.open()
        with pytest.raises(DataLocked):
            SimMedium(on.disk)

    simulate(main())


def test_random_garbage_is_never_a_traceback() -> None:
    async def main(seed: int) -> None:
        rng = random.Random(seed)
        on = LogOnDisk(seed)
        await _small_log(on)
        cache = on.disk.segments[0].cache
        for _ in range(rng.randrange(1, 4)):
            at, length = rng.randrange(400), rng.randrange(1, 300)
            cache[at : at + length] = rng.choice((rng.randbytes(length), bytes(length), bytes(cache[:length])))
        try:
            on.open()
        except LogError:
            return
        payloads = on.payloads()
        assert payloads == [b"one", b"two", b"three"][: len(payloads)]

    for seed in range(300):
        simulate(main(seed))
