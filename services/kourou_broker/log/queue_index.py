"""The queue index of the whole log: it finds the sections of a queue over all segments."""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from kourou_broker.log.index import GrowingIndex, Rows, SealedIndex, SegmentSummary, queue_key
from kourou_broker.log.medium import Medium
from kourou_broker.log.sealing import open_index, seal_index
from kourou_broker.log.section import Entry


class _Cursor(NamedTuple):
    """Where a lookup ended: the offsets from `start` to before `end` are all in that segment."""

    base: int
    start: int
    end: int


class QueueIndex:
    """The indexes of all segments. That of the active one is in memory, and so are those not yet sealed in a blob."""

    def __init__(
        self,
        medium: Medium,
        active: GrowingIndex,
        sealed: Iterable[int],
        unsealed: dict[int, GrowingIndex],
        open_indexes: int,
    ) -> None:
        self._medium = medium
        self._active = active
        self._sealed = list(sealed)
        self._unsealed = unsealed
        self._forgotten: set[int] = set()
        self._open: OrderedDict[int, SealedIndex] = OrderedDict()
        self._open_limit = open_indexes
        self._cursors: dict[int, _Cursor] = {}

    def add(self, topic: int, queue: int, base: int, count: int, position: int, length: int, stored_ms: int) -> None:
        """Enter a section of the active segment."""
        self._active.add(topic << 32 | queue, base, count, position, length, stored_ms)

    def roll(self, base: int) -> None:
        """A new segment begins; the index of the one before waits to be sealed."""
        self._unsealed[self._active.base] = self._active
        self._sealed.append(self._active.base)
        self._active = GrowingIndex(base)

    def first_unsealed(self) -> int | None:
        """The first segment behind the active one whose index is in memory only."""
        return next(iter(self._unsealed), None)

    def sealer(self, summary: SegmentSummary) -> Callable[[], None]:
        """The work of writing the index of the first unsealed segment; to be run in the background, one at a time."""
        index = self._unsealed[summary.base]
        number = bisect_left(self._sealed, summary.base)
        before = self._sealed[number - 1] if number else None
        forgotten = frozenset(self._forgotten)
        return lambda: seal_index(self._medium, index, summary, before, forgotten)

    def sealed(self, base: int) -> None:
        """The index of that segment is in its blob now."""
        del self._unsealed[base]

    def drop(self, base: int) -> None:
        """The segment, the first one, is no more."""
        self._sealed.remove(base)
        self._unsealed.pop(base, None)
        self._open.pop(base, None)

    def forget(self, topic: int) -> None:
        """Nobody will ask for that topic again."""
        self._forgotten.add(topic)
        for key in [key for key in self._cursors if key >> 32 == topic]:
            del self._cursors[key]

    def find(self, topic: int, queue: int, offset: int) -> Entry | None:
        """The section that holds the offset, or the first one after it."""
        key = queue_key(topic, queue)
        rows = self._active.rows(key)
        if rows is not None and rows.bases[0] <= offset:
            self._cursors.pop(key, None)
            return rows.find(offset)
        entry = self._find_behind(key, offset)
        if entry is None and rows is not None:
            return rows.entry(0)
        return entry

    def find_active(self, topic: int, queue: int, offset: int) -> Entry | None:
        """The section that holds the offset, if the active segment has it."""
        rows = self._active.rows(queue_key(topic, queue))
        return rows.find(offset) if rows is not None and rows.bases[0] <= offset else None

    def find_time(self, topic: int, queue: int, ms: int, base: int) -> int | None:
        """The first offset stored at `ms` or later; `base`: the first segment that has a frame stored then or later."""
        key = queue_key(topic, queue)
        rows = self._rows(base, key)
        offset = rows.first_stored_from(ms) if rows else None
        if offset is not None:
            return offset
        entry = self.find(topic, queue, self._end_at(base, key))
        return entry.base if entry else None

    def first_offsets(self, base: int) -> dict[tuple[int, int], int]:
        """For each queue, its first offset at or after the segment that begins at `base`."""
        number = bisect_left(self._sealed, base)
        ends: dict[int, int] = {}
        in_memory: list[GrowingIndex] = []
        while number:
            number -= 1
            before = self._unsealed.get(self._sealed[number])
            if before is None:
                ends = self._opened(self._sealed[number]).ends()
                break
            in_memory.append(before)
        for index in reversed(in_memory):
            ends.update(index.ends())
        return {(key >> 32, key & 0xFFFFFFFF): end for key, end in ends.items()}

    def _find_behind(self, key: int, offset: int) -> Entry | None:
        cursor = self._cursors.get(key)
        if cursor is None or not cursor.start <= offset < cursor.end or not self._is_sealed(cursor.base):
            cursor = self._search(key, offset, cursor)
            if cursor is None:
                return None
            self._cursors[key] = cursor
        rows = self._rows(cursor.base, key)
        entry = rows.find(offset) if rows else None
        if entry is None:
            # Only the first segment can know an end beyond the offset and have no rows: they were dropped.
            return self._find_behind(key, cursor.end)
        return entry

    def _search(self, key: int, offset: int, last: _Cursor | None) -> _Cursor | None:
        """The first segment behind the active one whose end of the queue lies beyond the offset."""
        sealed = self._sealed
        low, high = 0, len(sealed)
        if not high or self._end(high - 1, key) <= offset:
            return None
        if last is not None and last.end <= offset:
            low = bisect_left(sealed, last.base)
            # Who reads a queue through finds it in the next segment, mostly.
            if low + 1 < high and self._end(low + 1, key) > offset:
                high = low + 1
        while low < high:
            middle = (low + high) // 2
            if self._end(middle, key) > offset:
                high = middle
            else:
                low = middle + 1
        return _Cursor(sealed[low], self._end(low - 1, key), self._end(low, key))

    def _end_at(self, base: int, key: int) -> int:
        if base == self._active.base:
            end = self._active.end(key)
            return end if end is not None else self._end(len(self._sealed) - 1, key)
        return self._end(bisect_left(self._sealed, base), key)

    def _end(self, number: int, key: int) -> int:
        while number >= 0:
            base = self._sealed[number]
            end = (self._unsealed.get(base) or self._opened(base)).end(key)
            if end is not None:
                return end
            number -= 1
        return 0

    def _rows(self, base: int, key: int) -> Rows | None:
        if base == self._active.base:
            return self._active.rows(key)
        return (self._unsealed.get(base) or self._opened(base)).rows(key)

    def _is_sealed(self, base: int) -> bool:
        number = bisect_left(self._sealed, base)
        return number < len(self._sealed) and self._sealed[number] == base

    def _opened(self, base: int) -> SealedIndex:
        index = self._open.get(base)
        if index is not None:
            self._open.move_to_end(base)
            return index
        index = self._open[base] = open_index(self._medium, base)
        if len(self._open) > self._open_limit:
            self._open.popitem(last=False)
        return index
