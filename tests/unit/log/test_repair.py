"""Repair: what can be saved is saved, and what is overwritten is kept."""

import asyncio
import random

import pytest

from kourou_broker.log.errors import DamagedLog
from kourou_broker.log.repair import inspect, repair, scrub
from tests.simulation.disk import SimMedium
from tests.simulation.time import simulate
from tests.unit.log.logs import LogOnDisk, fill, record


async def _log(on: LogOnDisk, frames: int = 30) -> list[bytes]:
    log = on.open()
    await fill(log, frames)
    await log.close()
    on.open(idle_mark_after_s=1000)
    return on.payloads()


def _medium(on: LogOnDisk) -> SimMedium:
    on.disk.kill()
    return SimMedium(on.disk)


def test_a_whole_log_is_healthy() -> None:
    async def main() -> None:
        on = LogOnDisk()
        await _log(on)
        report = inspect(_medium(on))
        assert report.healthy
        assert (report.first, report.end, report.tail) == (0, on.log.next_position, None)
        assert scrub(on.disk.opened or _medium(on), 0) is None

    simulate(main())


def test_skip_loses_the_damaged_frames_and_no_more() -> None:
    async def main() -> None:
        on = LogOnDisk()
        payloads = await _log(on)
        frames = list(on.frames)
        for number in (3, 10, 11, 20):
            segment = max(base for base in on.disk.segments if base <= frames[number].position)
            on.disk.flip(segment, frames[number].position - segment + 70)
        with pytest.raises(DamagedLog):
            on.open()
        medium = _medium(on)
        report = repair(medium, "skip")
        assert [(damage.position, damage.end) for damage in report.damages] == [
            (frames[3].position, frames[3].end),
            (frames[10].position, frames[11].end),
            (frames[20].position, frames[20].end),
        ]
        assert medium.read_blob(f"damaged-{frames[3].position:016x}")
        assert inspect(medium).healthy
        log = on.open()
        assert on.payloads() == [payload for number, payload in enumerate(payloads) if number not in (3, 10, 11, 20)]
        log.append([record(b"goes on")], 1)
        await log.close()

    simulate(main())


def test_skip_bridges_a_missing_segment() -> None:
    async def main() -> None:
        on = LogOnDisk()
        await _log(on)
        segments = on.log.segments()
        kept = [f for f in on.frames if not segments[1].base <= f.position < segments[2].base]
        payloads = [section.payload for frame in kept for section in frame.sections]
        del on.disk.segments[segments[1].base]
        assert len(repair(_medium(on), "skip").damages) == 1
        on.open()
        assert on.payloads() == payloads

    simulate(main())


def test_cut_ends_the_log_at_the_damage() -> None:
    async def main() -> None:
        on = LogOnDisk()
        payloads = await _log(on)
        frame = on.frames[12]
        segment = max(base for base in on.disk.segments if base <= frame.position)
        on.disk.flip(segment, frame.position - segment + 70)
        medium = _medium(on)
        repair(medium, "cut")
        assert [name for name in medium.list_blobs() if name.startswith("damaged-")]
        log = on.open()
        assert on.payloads() == payloads[:12]
        assert log.next_position == frame.position
        await fill(log, 10)
        await log.close()
        on.open()
        assert len(on.payloads()) == 22

    simulate(main())


@pytest.mark.parametrize("mode", ["skip", "cut"])
def test_any_damage_can_be_repaired(mode: str) -> None:
    async def main(seed: int) -> None:
        rng = random.Random(seed)
        on = LogOnDisk(seed)
        payloads = await _log(on, 25)
        for _ in range(rng.randrange(1, 5)):
            segment = rng.choice(sorted(on.disk.segments))
            cache = on.disk.segments[segment].cache
            at, length = rng.randrange(len(cache)), rng.choice((1, 8, 600, 5000))
            length = min(length, len(cache) - at)
            cache[at : at + length] = rng.choice((bytes(length), rng.randbytes(length)))
        repair(_medium(on), mode)  # type: ignore[arg-type]
        on.open()
        found = on.payloads()
        assert [payload for payload in payloads if payload in found] == found
        await asyncio.sleep(0)

    for seed in range(60):
        simulate(main(seed))


def test_scrub_says_where_a_sealed_segment_is_damaged() -> None:
    async def main() -> None:
        on = LogOnDisk()
        await _log(on)
        base = on.log.segments()[1].base
        on.disk.flip(base, 500)
        assert f"segment {base:016x}" in (scrub(_medium(on), base) or "")

    simulate(main())
