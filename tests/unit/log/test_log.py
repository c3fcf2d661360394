"""The log as those above it use it."""

import asyncio
import errno

import pytest

from kourou_broker.log.errors import Dropped, FrameTooLarge, LogFailed, LogFull
from kourou_broker.log.section import Entry
from tests.simulation.time import simulate
from tests.unit.log.logs import SEGMENT_BYTES, LogOnDisk, fill, messages, record, settled


def test_what_was_appended_is_given_back_at_the_next_start() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open(epoch=3)
        sections = [messages(1, 0, 2, b"ab"), record(b"x")]
        first = log.append(sections, 50)
        second = log.append([record(b"y")], 60)
        assert first.end == second.position
        await log.close()
        on.open()
        frames = on.frames
        assert [(frame.position, frame.end, frame.epoch, frame.stored_ms) for frame in frames[:2]] == [
            (*first[:2], 3, 50),
            (*second[:2], 3, 60),
        ]
        assert [section.position for section in frames[0].sections] == first.section_positions
        assert [section._replace(position=-1) for section in frames[0].sections] == sections

    simulate(main())


def test_frames_sealed_while_a_group_is_on_its_way_go_together() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open()
        appended = [log.append([record(b"x")], 1) for _ in range(5)]
        assert log.pending_bytes == appended[-1].end
        await settled(log)
        assert on.durable == [appended[0].end, appended[-1].end]

    simulate(main())


def test_only_frames_from_the_start_on_are_applied() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open()
        await fill(log, 40)
        position = log.append([record(b"here")], 99_000).position
        log.append([record(b"there")], 99_000)
        await log.close()
        log = on.open(start=position)
        assert on.payloads() == [b"here", b"there"]
        entry = log.find(7, 0, 0)
        assert entry is not None
        assert entry.base == 0

    simulate(main())


def test_find_gives_the_section_that_holds_the_offset_or_the_next_one() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open()
        await fill(log, 60)
        # A queue whose messages begin late and have a gap.
        log.append([messages(9, 10, 5), messages(9, 20, 5)], 70_000)
        for reopened in (False, True):
            if reopened:
                await log.close()
                log = on.open()
            assert len(log.segments()) > 3
            for queue in range(3):
                for offset in range(40):
                    entry = log.find(7, queue, offset)
                    assert entry is not None
                    assert entry.base == offset // 2 * 2
                    assert entry.stored_ms == 1_000 * (offset // 2 * 3 + queue + 1)
                assert log.find(7, queue, 40) is None
            assert [entry.base if (entry := log.find(7, 9, offset)) else None for offset in (0, 12, 17, 24, 25)] == [
                10,
                10,
                20,
                20,
                None,
            ]
            assert log.find(8, 0, 0) is None

    simulate(main())


def test_find_time() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open()
        await fill(log, 60)
        for reopened in (False, True):
            if reopened:
                await log.close()
                log = on.open()
            for number in range(58):
                ms = 1_000 * (number + 1)
                expected = (number + (1 - number) % 3) // 3 * 2
                assert log.find_time(7, 1, ms) == expected
                assert log.find_time(7, 1, ms - 1) == expected
            assert log.find_time(7, 1, 10**9) is None
            assert log.find_time(7, 5, 0) is None

    simulate(main())


def test_read_from_the_cache_and_from_the_medium() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open(cache_bytes=1000)
        await fill(log, 30)
        old, new = log.find(7, 0, 0), log.find(7, 2, 18)
        assert old is not None
        assert new is not None
        assert log.read_now(old.position, old.length) is None
        assert log.read_now(new.position, new.length) == await log.read(new.position, new.length)
        assert log.read_now(log.next_position, 10) is None
        assert (await log.read(old.position, old.length))[-300:] == bytes(300)
        with pytest.raises(ValueError, match="durable"):
            await log.read(log.next_position, 10)

    simulate(main())


def test_drop_before_keeps_the_rest() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open(cache_bytes=0)
        await fill(log, 60)
        await asyncio.sleep(1)
        third = log.segments()[2]
        offsets = log.first_offsets(third.base)
        entry = log.find(7, 0, 0)
        assert entry is not None
        await log.drop_before(third.base + 1)
        assert log.first_position == third.base
        with pytest.raises(Dropped):
            await log.read(entry.position, entry.length)
        for reopened in (False, True):
            if reopened:
                await log.close()
                log = on.open(start=third.base)
            assert log.segments()[0].base == third.base
            for queue in range(3):
                entry = log.find(7, queue, 0)
                assert entry is not None
                assert entry.base == offsets[7, queue]
        assert set(on.disk.blobs) == {f"queues-{segment.base:016x}" for segment in log.segments()[:-1]}

    simulate(main())


def test_the_active_segment_is_never_dropped() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open()
        await fill(log, 30)
        await log.drop_before(1 << 40)
        assert len(log.segments()) == 1
        await fill(log, 30, first=30)

    simulate(main())


def test_a_lost_index_costs_only_a_rebuild() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open()
        await fill(log, 60)
        await log.close()
        before = dict(on.disk.blobs)
        names = sorted(before)
        for lost in (names[:1], names[1:2], names):
            for name in lost:
                del on.disk.blobs[name]
            log = on.open(start=log.next_position)
            assert on.disk.blobs == before
        # Damaged while the log is open.
        on.disk.blobs[names[0]] = before[names[0]][:-1] + b"?"
        assert log.find(7, 0, 0) is not None
        assert on.disk.blobs == before

    simulate(main())


def test_a_forgotten_topic_leaves_the_indexes() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open()
        log.append([messages(0, 0, topic=66)], 1)
        await fill(log, 15)
        await asyncio.sleep(1)
        log.forget(66)
        await fill(log, 15, first=15)
        await asyncio.sleep(1)
        last = log.segments()[-1].base
        assert (66, 0) not in log.first_offsets(last)
        assert (7, 0) in log.first_offsets(last)
        assert log.find(66, 0, 0) is None

    simulate(main())


def test_an_idle_log_says_that_all_is_durable() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open(idle_mark_after_s=0.2)
        end = log.append([record(b"x")], 1).end
        await asyncio.sleep(0.1)
        assert log.next_position == end
        await asyncio.sleep(0.2)
        marked = log.next_position
        assert marked > end
        await asyncio.sleep(10)
        assert log.next_position == marked
        # Now damage to the last record is damage, not a torn tail.
        on.open()
        assert [len(frame.sections) for frame in on.frames] == [1, 0]

    simulate(main())


def test_flush_async_is_done_when_written_and_durable_a_while_later() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open(flush="async", flush_interval_ms=500, idle_mark_after_s=100)
        end = log.append([record(b"x")], 1).end
        await asyncio.sleep(0.1)
        assert (log.durable_position, log.synced_position, on.durable) == (end, 0, [end])
        await asyncio.sleep(0.5)
        assert log.synced_position == end
        await fill(log, 40)
        await log.close()
        assert log.synced_position == log.next_position
        on.disk.cut_power()
        on.open()
        assert len(on.payloads()) == 41

    simulate(main())


@pytest.mark.parametrize("fault", ["write_error", "sync_error"])
def test_a_failed_write_or_sync_ends_the_log(fault: str) -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open()
        log.append([record(b"x")], 1)
        await settled(log)
        durable = log.durable_position
        error = OSError(errno.EIO, "broken")
        setattr(on.disk, fault, error)
        log.append([record(b"y")], 1)
        await asyncio.sleep(1)
        setattr(on.disk, fault, None)
        await asyncio.sleep(10)
        assert on.failures == [error]
        assert log.durable_position == durable
        with pytest.raises(LogFailed):
            log.append([record(b"z")], 1)
        await log.close()

    simulate(main())


def test_a_full_disk_refuses_messages_and_leaves_room_for_the_rest() -> None:
    async def main() -> None:
        # Room for three segments, indexes, and the watermark.
        on = LogOnDisk(capacity_bytes=3 * SEGMENT_BYTES + 3000)
        log = on.open(disk_watermark_bytes=2000)
        assert log.writable_messages
        await fill(log, 8, payload_bytes=1000)
        await asyncio.sleep(2)
        assert not log.writable_messages
        refused = 0
        assert log.takes_records
        for _ in range(100):
            position = log.next_position
            try:
                log.append([record(bytes(100))], 1)
            except LogFull:
                refused += 1
                assert log.next_position == position
            await settled(log)
        assert 0 < refused < 100
        assert not log.takes_records
        # What frees space still finds room, and then all goes on.
        log.append([record(b"trim")], 1, freeing=True)
        await settled(log)
        await log.drop_before(log.segments()[-1].base)
        await asyncio.sleep(5)
        assert log.writable_messages
        await fill(log, 5, payload_bytes=1000, first=8)
        await log.close()
        on.open(start=log.first_position)
        assert len(on.payloads()) > 5

    simulate(main())


def test_a_disk_that_is_full_for_a_while_is_used_again_by_itself() -> None:
    async def main() -> None:
        on = LogOnDisk(capacity_bytes=3 * SEGMENT_BYTES)
        log = on.open()
        await fill(log, 9, payload_bytes=1000)
        await asyncio.sleep(2)
        assert not log.writable_messages
        on.disk.capacity_bytes = 1 << 30
        await asyncio.sleep(2)
        assert log.writable_messages

    simulate(main())


def test_a_frame_that_fits_no_segment_is_refused() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open()
        with pytest.raises(FrameTooLarge):
            log.append([record(bytes(SEGMENT_BYTES))], 1)
        assert log.next_position == 0
        log.append([record(bytes(SEGMENT_BYTES - 48 - 28))], 1)
        log.append([record(b"x")], 1)
        assert len(log.segments()) == 2

    simulate(main())


def test_another_segment_size_is_used_from_the_next_segment_on() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open()
        await fill(log, 20)
        await log.close()
        log = on.open(segment_bytes=2 * SEGMENT_BYTES)
        await fill(log, 60, first=20)
        await log.close()
        assert {len(segment.cache) for segment in on.disk.segments.values()} == {SEGMENT_BYTES, 2 * SEGMENT_BYTES}
        on.open()
        assert len(on.payloads()) == 80

    simulate(main())


def test_many_segments_may_be_begun_in_one_turn() -> None:
    async def main() -> None:
        on = LogOnDisk()
        log = on.open()
        for number in range(100):
            log.append([messages(0, number, 1, bytes(500))], 1)
        await settled(log)
        assert len(log.segments()) > 10
        await log.close()
        on.open()
        assert len(on.payloads()) == 100

    simulate(main())


def test_entries_span_header_and_payload() -> None:
    async def main() -> None:
        log = LogOnDisk().open()
        appended = log.append([messages(0, 5, 3, b"payload")], 77)
        assert log.find(7, 0, 6) == Entry(5, 3, appended.section_positions[0], 28 + 7, 77)

    simulate(main())
