"""The log of a shard: append, commit, read, find, drop. One event loop owns it."""

import asyncio
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from kourou_broker.log.cache import TailCache
from kourou_broker.log.commit import GroupCommit
from kourou_broker.log.errors import Dropped, FrameTooLarge, LogFailed, LogFull
from kourou_broker.log.frame import HEADER_BYTES, MAX_SECTIONS, seal
from kourou_broker.log.idle_mark import IdleMark
from kourou_broker.log.medium import DiskSpace, Medium
from kourou_broker.log.options import LogOptions
from kourou_broker.log.queue_index import QueueIndex
from kourou_broker.log.recovery import Apply, Progress, Recovered, Segment, recover
from kourou_broker.log.sealing import drop_derived
from kourou_broker.log.section import QUEUED_KINDS, SECTION_HEADER_BYTES, Entry, Section
from kourou_broker.log.space import Space
from kourou_broker.log.worker import Worker, run_in
from kourou_service.metrics.histogram import Histogram

# The end of the last segment that a full disk leaves is kept for records that free space.
_FREEING_RESERVE_BYTES = 1 << 20


class Appended(NamedTuple):
    """Where a frame went."""

    position: int
    end: int
    section_positions: list[int]


class SegmentInfo(NamedTuple):
    """A segment: it holds the log from `base` to before `end`. The times are 0 while it holds no frame."""

    base: int
    end: int
    first_stored_ms: int
    last_stored_ms: int
    sealed: bool


class Log:
    """Frames one behind the other, in segments.

    `on_durable(position)` is called after each group that was committed, `on_failure(error)` once, when a write or a
    sync failed: the log takes nothing then, and whoever owns it should stop.
    """

    @classmethod
    def recover(
        cls,
        medium: Medium,
        worker: Worker,
        options: LogOptions,
        start: int,
        apply: Apply,
        on_progress: Progress | None = None,
        *,
        reader: Worker | None = None,
        background: Worker | None = None,
    ) -> "Log":
        """Verify the log, and give each frame from the position `start` on to `apply`; on_progress(position, of).

        It blocks, and must be called on the running loop. `worker` commits; `reader` and `background` (spares, indexes,
        dropping) should be others, so that neither waits for the other. Raises LogError and OSError.
        """
        found = recover(medium, options.segment_bytes, start, apply, on_progress)
        return cls(medium, worker, reader or worker, background or worker, options, found)

    def __init__(
        self,
        medium: Medium,
        worker: Worker,
        reader: Worker,
        background: Worker,
        options: LogOptions,
        found: Recovered,
    ) -> None:
        self.on_durable: Callable[[int], None] | None = None
        self.on_failure: Callable[[BaseException], None] | None = None
        self.kept_from: int | None = None
        """What ends beyond this position is not dropped: a backup has not copied it yet."""
        self._loop = asyncio.get_running_loop()
        self._medium = medium
        self._reader = reader
        self._background = background
        self._options = options
        self._segments = found.segments
        self._chain = found.chain
        # The chain at the end of segments whose index is not sealed yet.
        self._chains = found.chains
        self.next_position = self._durable = self._began_at = found.segments[-1].end
        self.frames = 0
        """How many were appended."""
        self._cache = TailCache(options.cache_bytes)
        sealed = [segment.base for segment in found.segments[:-1]]
        self._index = QueueIndex(medium, found.active, sealed, found.unsealed, options.open_indexes)
        self._commit = GroupCommit(
            medium,
            worker,
            options.flush,
            options.flush_interval_ms / 1000,
            self.next_position,
            self._committed,
            self._failed,
        )
        self._space = Space(medium, background, options, self._commit.allow_create)
        self._reads: Counter[int] = Counter()
        self._sealing: int | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._idle_mark = IdleMark(options.idle_mark_after_s, self._is_synced, self._mark)
        self._closed = False
        self._space.start()
        self._seal_next_index()

    # Positions

    @property
    def first_position(self) -> int:
        """The position of the first frame that is left."""
        return self._segments[0].base

    @property
    def durable_position(self) -> int:
        """All below it may be answered and delivered: it is durable, or with flush "async", written."""
        return self._durable

    @property
    def synced_position(self) -> int:
        """All below it is durable."""
        return self._commit.synced

    @property
    def pending_bytes(self) -> int:
        """What is sealed and waits for the medium."""
        return self.next_position - self._durable

    @property
    def last_stored_ms(self) -> int:
        """The store time of the last frames, 0 if there is none: the next one should not be earlier."""
        return max(segment.last_stored_ms for segment in self._segments[-2:])

    @property
    def writable_messages(self) -> bool:
        """False while the disk is nearly full: take only what lets consumers go on."""
        return self._space.writable

    @property
    def takes_records(self) -> bool:
        """False shortly before `append` would raise LogFull: whoever acts before it appends should ask first."""
        return self._space.can_take() or self._room_bytes() >= 2 * self._reserve_bytes()

    @property
    def segment_bytes(self) -> int:
        """Of new segments; a frame has to fit into one."""
        return self._options.segment_bytes

    # Figures

    @property
    def appended_bytes(self) -> int:
        """By this process."""
        return self.next_position - self._began_at

    @property
    def groups(self) -> int:
        """Groups of frames that were written together."""
        return self._commit.groups

    @property
    def sync_times(self) -> Histogram:
        """How long each sync took, seconds."""
        return self._commit.sync_times

    @property
    def disk(self) -> DiskSpace:
        """As it was seen last: it is looked at every second."""
        return self._space.disk

    # Writing

    def append(self, sections: Sequence[Section], stored_ms: int, *, freeing: bool = False) -> Appended:
        """Seal a frame; it is written with the next group.

        `freeing` records (such as those that let segments go) may use the last reserve of a full disk.
        Raises LogFull, LogFailed, FrameTooLarge; nothing has changed then.
        """
        if self._closed or self._commit.failed:
            raise LogFailed("the log takes no frames any more: it was closed, or a write failed")
        if len(sections) > MAX_SECTIONS:
            raise FrameTooLarge(f"a frame of {len(sections)} sections; at most {MAX_SECTIONS} go into one")
        position = self.next_position
        sealed = seal(
            sections,
            prev_crc=self._chain,
            epoch=self._options.epoch,
            position=position,
            durable=self._commit.synced,
            stored_ms=stored_ms,
        )
        end = sealed.end
        create_bytes = self._make_room(end - position, freeing)
        segment = self._segments[-1]
        self._chain = sealed.crc
        self.next_position = end
        self.frames += 1
        self._idle_mark.needed = bool(sections)
        segment.enter(end, stored_ms)
        self._cache.add(position + HEADER_BYTES, sealed.body)
        self._enter(sections, sealed.section_positions, stored_ms)
        self._commit.add(segment.base, position - segment.base, create_bytes, end, (sealed.head, *sealed.body))
        return Appended(position, end, sealed.section_positions)

    async def close(self) -> None:
        """Make everything durable and say so in an empty frame. Medium and workers are the caller's to close."""
        await self._sync_all()
        if self._idle_mark.needed and not self._commit.failed:
            self._mark()
            await self._sync_all()
        self._closed = True
        self._space.close()
        self._idle_mark.close()

    # Reading

    def find(self, topic: int, queue: int, offset: int) -> Entry | None:
        """The MESSAGES section that holds the queue offset, or the first one after it."""
        return self._index.find(topic, queue, offset)

    def find_active(self, topic: int, queue: int, offset: int) -> Entry | None:
        """The same as `find`, if the active segment has it: that takes no time."""
        return self._index.find_active(topic, queue, offset)

    def find_time(self, topic: int, queue: int, ms: int) -> int | None:
        """The queue offset of the first section stored at `ms` or later."""
        number = bisect_left(self._segments, ms, key=lambda segment: segment.last_stored_ms)
        if number == len(self._segments):
            return None
        return self._index.find_time(topic, queue, ms, self._segments[number].base)

    def forget(self, topic: int) -> None:
        """The topic was deleted: nobody asks for its queues any more."""
        self._index.forget(topic)

    def read_now(self, position: int, length: int) -> bytes | None:
        """That range of the log as `read` gives it, if it takes no time: from the tail cache or the page cache."""
        data = self._cache.read(position, length)
        if data is not None or not self.first_position <= position <= self.readable_end(position) - length:
            return data
        base = self._segment(position).base
        return self._medium.read_now(base, position - base, length)

    async def read(self, position: int, length: int) -> bytes:
        """That range of the log; it must be durable and lie within one segment. Raises Dropped, OSError."""
        data = self._cache.read(position, length)
        if data is not None:
            return data
        if position < self.first_position:
            raise Dropped(f"the log begins at {self.first_position}; {position} is no more")
        segment = self._segment(position)
        if position + length > self.readable_end(position):
            raise ValueError(f"{length} bytes from {position} on are not within the durable part of one segment")
        self._reads[segment.base] += 1
        try:
            return await run_in(self._reader, lambda: self._medium.read(segment.base, position - segment.base, length))
        finally:
            self._reads[segment.base] -= 1
            if not self._reads[segment.base]:
                del self._reads[segment.base]
                self._wake()

    async def read_at_most(self, position: int, length: int) -> bytes:
        """The same, but less where the durable part of the segment ends."""
        data = self._cache.read(position, length)
        if data is not None:
            return data
        return await self.read(position, min(length, self.readable_end(position) - position))

    def readable_end(self, position: int) -> int:
        """Of the durable part of the segment of that position."""
        return min(self._segment(position).end, self._durable)

    # Segments

    def segments(self) -> list[SegmentInfo]:
        """All segments, the active one last."""
        last = self._segments[-1]
        return [
            SegmentInfo(segment.base, segment.end, segment.first_stored_ms, segment.last_stored_ms, segment is not last)
            for segment in self._segments
        ]

    def first_offsets(self, position: int) -> dict[tuple[int, int], int]:
        """For each (topic, queue) with messages before the segment at `position`: its first offset from there on."""
        return self._index.first_offsets(position)

    async def drop_before(self, position: int) -> None:
        """Let go of the segments that end at `position` or before; never of the active one. Raises OSError."""
        while len(self._segments) > 1 and self._segments[0].end <= min(position, self._droppable()):
            base, size_bytes = self._segments[0].base, self._segments[0].size_bytes
            if self._sealing == base:
                await self._progress()
                continue
            self._segments.pop(0)
            self._chains.pop(base, None)
            self._index.drop(base)
            while self._reads[base]:
                await self._progress()
            await self._drop(base, size_bytes)

    def _segment(self, position: int) -> Segment:
        return self._segments[bisect_right(self._segments, position, key=lambda segment: segment.base) - 1]

    def _droppable(self) -> int:
        return self._commit.synced if self.kept_from is None else min(self._commit.synced, self.kept_from)

    async def _drop(self, base: int, size_bytes: int) -> None:
        recycle = self._space.wants_spare and size_bytes == self._options.segment_bytes

        def work() -> None:
            if recycle:
                self._medium.recycle(base)
            else:
                self._medium.drop(base)
            drop_derived(self._medium, base)

        await run_in(self._background, work)
        if recycle:
            self._space.recycled()

    def _make_room(self, length: int, freeing: bool) -> int:
        """Begin a new segment if the frame does not fit the active one; its size in bytes then, else 0."""
        active = self._segments[-1]
        room = self._room_bytes() - length
        if room >= 0:
            if not freeing and room < self._reserve_bytes() and not self._space.can_take():
                raise LogFull("the disk is full, and so is the space that was reserved")
            return 0
        size = self._options.segment_bytes
        if length > size:
            raise FrameTooLarge(f"a frame of {length} bytes does not fit a segment of {size} bytes")
        if not self._space.can_take():
            raise LogFull("the disk is full, and so is the space that was reserved")
        base = self.next_position
        self._chains[active.base] = self._chain
        self._index.roll(base)
        self._segments.append(Segment(base, size, base))
        self._space.take()
        return size

    def _room_bytes(self) -> int:
        active = self._segments[-1]
        return active.base + active.size_bytes - self.next_position

    def _reserve_bytes(self) -> int:
        return min(_FREEING_RESERVE_BYTES, self._segments[-1].size_bytes // 16)

    def _enter(self, sections: Sequence[Section], positions: list[int], stored_ms: int) -> None:
        add = self._index.add
        for (kind, _, topic, queue, base, count, payload, _), position in zip(sections, positions, strict=True):
            if kind in QUEUED_KINDS:
                add(topic, queue, base, count, position, SECTION_HEADER_BYTES + len(payload), stored_ms)

    def _committed(self) -> None:
        durable = self._commit.written
        self._cache.evict(durable)
        if durable > self._durable:
            self._durable = durable
            if self.on_durable:
                self.on_durable(durable)
        self._seal_next_index()
        self._wake()
        self._idle_mark.committed()

    def _failed(self, error: BaseException) -> None:
        self._idle_mark.close()
        self._wake()
        if self.on_failure:
            self.on_failure(error)

    def _is_synced(self) -> bool:
        return self._commit.synced == self.next_position

    def _mark(self) -> None:
        # Without room for it, what was appended last is as sure as after any crash.
        with suppress(LogFull):
            self.append((), self.last_stored_ms)

    def _seal_next_index(self) -> None:
        """Write the index of the next segment behind us, once it is durable."""
        base = self._index.first_unsealed()
        if base is None or self._sealing is not None or self._closed:
            return
        segment = self._segments[bisect_left(self._segments, base, key=lambda segment: segment.base)]
        if segment.end > self._commit.synced:
            return
        self._sealing = base
        work = self._index.sealer(segment.summary(self._chains[base]))
        self._background.submit(work, lambda _: self._sealed(base), self._not_sealed)

    def _sealed(self, base: int) -> None:
        self._sealing = None
        self._index.sealed(base)
        del self._chains[base]
        self._wake()
        self._seal_next_index()

    def _not_sealed(self, _: BaseException) -> None:
        # No space, usually. The index stays in memory, and could be built anew from the log at any time.
        self._sealing = None
        self._wake()
        if not self._closed:
            self._loop.call_later(self._options.space_check_interval_s, self._seal_next_index)

    async def _sync_all(self) -> None:
        while self._commit.synced < self.next_position and not self._commit.failed:
            if self._commit.written == self.next_position:
                self._commit.sync_now()
            await self._progress()

    async def _progress(self) -> None:
        """Until something was committed, sealed or read, or the log failed."""
        waiting: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(waiting)
        await waiting

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
