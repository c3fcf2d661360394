"""Where the messages of each queue are: the rows of one segment, growing in memory or sealed in a blob.

Derived from the log: an index that is missing or damaged is built again from its segment.

A sealed index is a head and 64-bit words in the machine's own order:
    keys of all n queues known at the segment's end, ascending    n words    (key: topic << 32 | queue)
    for each: first word of its rows, rows, end                   3 n words  (end: the offset after its last message)
    for each with rows: the base of each row, then for each row its position, count << 32 | length, stored_ms
A queue that has no rows in the segment is listed all the same, with the end that it had before; so one can search
the segments for an offset by halves.
"""

import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from struct import Struct
from typing import NamedTuple, TypeVar

from kourou_broker.log.checksum import value
from kourou_broker.log.section import Entry

_MAGIC = b"KRUi"
_VERSION = 1
# magic, crc of the rest of the head, version, crc of the words, crc of the segment's last frame, queues, base, end,
# first_stored_ms, last_stored_ms
_HEAD = Struct("=4sIIIIIQQQQ")
_SUMMED = Struct("=IIIIQQQQ")
_YIELD_EVERY = 256
_LOW = 0xFFFFFFFF

T = TypeVar("T")
Words = Sequence[int]


def queue_key(topic: int, queue: int) -> int:
    """One number for a queue of a topic."""
    return topic << 32 | queue


class Rows:
    """The sections of one queue in one segment: their bases, and three words on each."""

    __slots__ = ("bases", "details")

    def __init__(self, bases: Words, details: Words) -> None:
        self.bases = bases
        self.details = details

    def entry(self, row: int) -> Entry:
        """The section in that row."""
        position, sizes, stored_ms = self.details[3 * row : 3 * row + 3]
        return Entry(self.bases[row], sizes >> 32, position, sizes & _LOW, stored_ms)

    def find(self, offset: int) -> Entry | None:
        """The section that holds the offset, or the first one after it."""
        row = bisect_right(self.bases, offset) - 1
        if row >= 0:
            entry = self.entry(row)
            if offset < entry.base + entry.count:
                return entry
        return self.entry(row + 1) if row + 1 < len(self.bases) else None

    def first_stored_from(self, ms: int) -> int | None:
        """The offset of the first section stored at that time or later."""
        row = bisect_left(range(len(self.bases)), ms, key=lambda row: self.details[3 * row + 2])
        return self.bases[row] if row < len(self.bases) else None

    @property
    def end(self) -> int:
        """The queue offset after the last message."""
        return self.bases[-1] + (self.details[-2] >> 32)


class GrowingRows(Rows):
    """The same while the segment is written."""

    __slots__ = ()
    bases: "array[int]"
    details: "array[int]"


class SegmentSummary(NamedTuple):
    """What the head of a sealed index says of its segment."""

    base: int
    end: int
    chain: int
    first_stored_ms: int
    last_stored_ms: int


class GrowingIndex:
    """The index of a segment that is written, or not yet sealed in a blob."""

    def __init__(self, base: int) -> None:
        self.base = base
        self._rows: dict[int, GrowingRows] = {}

    def add(self, key: int, base: int, count: int, position: int, length: int, stored_ms: int) -> None:
        """Enter a section."""
        rows = self._rows.get(key)
        if rows is None:
            rows = self._rows[key] = GrowingRows(array("Q"), array("Q"))
        rows.bases.append(base)
        rows.details.extend((position, count << 32 | length, stored_ms))

    def rows(self, key: int) -> Rows | None:
        """The sections of a queue."""
        return self._rows.get(key)

    def end(self, key: int) -> int | None:
        """The end of a queue; None if it has no rows here, so that the segment before knows."""
        rows = self._rows.get(key)
        return rows.end if rows else None

    def ends(self) -> dict[int, int]:
        """The ends of all queues with rows."""
        return {key: rows.end for key, rows in _in_turns(self._rows.items())}

    def seal(self, summary: SegmentSummary, ends: Mapping[int, int]) -> bytes:
        """The sealed index; `ends` are those of all queues, also those without rows here."""
        keys = array("Q", sorted(ends))
        directory = array("Q")
        parts: list[bytes | array[int]] = []
        word = 4 * len(keys)
        for key in _in_turns(keys):
            rows = self._rows.get(key)
            count = len(rows.bases) if rows else 0
            directory.extend((word, count, ends[key]))
            if rows:
                parts += (rows.bases, rows.details)
                word += 4 * count
        words = b"".join((keys, directory, *parts))
        summed = _SUMMED.pack(
            _VERSION,
            value(words),
            summary.chain,
            len(keys),
            summary.base,
            summary.end,
            summary.first_stored_ms,
            summary.last_stored_ms,
        )
        return b"".join((_MAGIC, value(summed).to_bytes(4, "little"), summed, words))


class SealedIndex:
    """An index as read back. ValueError if it is not whole."""

    def __init__(self, view: memoryview) -> None:
        self.summary, words_crc, queues = _read_head(view)
        words = bytes(view[_HEAD.size :])
        if len(words) % 8 or value(words) != words_crc:
            raise ValueError("the index is damaged")
        self._words = view[_HEAD.size :].cast("Q")
        self._keys = self._words[:queues]

    @property
    def base(self) -> int:
        """The base of the segment."""
        return self.summary.base

    def rows(self, key: int) -> Rows | None:
        """The sections of a queue."""
        at = self._directory_at(key)
        if at is None:
            return None
        word, count, _ = self._words[at : at + 3]
        if count == 0:
            return None
        details = word + count
        return Rows(self._words[word:details], self._words[details : details + 3 * count])

    def end(self, key: int) -> int | None:
        """The end of a queue at the end of the segment; 0 if the queue was not known by then."""
        at = self._directory_at(key)
        return self._words[at + 2] if at is not None else 0

    def ends(self) -> dict[int, int]:
        """The ends of all queues known at the end of the segment."""
        queues = len(self._keys)
        return dict(zip(self._keys, self._words[queues + 2 : 4 * queues : 3], strict=True))

    def _directory_at(self, key: int) -> int | None:
        number = bisect_left(self._keys, key)
        if number == len(self._keys) or self._keys[number] != key:
            return None
        return len(self._keys) + 3 * number


def read_summary(view: memoryview) -> SegmentSummary:
    """The head of a sealed index alone; ValueError if it is not whole."""
    return _read_head(view)[0]


def index_blob(base: int) -> str:
    """The name of the blob with the index of that segment."""
    return f"queues-{base:016x}"


def _in_turns(items: Iterable[T]) -> Iterator[T]:
    """The items; every few of them, other threads get their turn: this runs beside the loop."""
    for number, item in enumerate(items):
        if number % _YIELD_EVERY == 0:
            time.sleep(0)
        yield item


def _read_head(view: memoryview) -> tuple[SegmentSummary, int, int]:
    if len(view) < _HEAD.size:
        raise ValueError("the index is too short")
    magic, crc, version, words_crc, chain, queues, base, end, first_ms, last_ms = _HEAD.unpack_from(view)
    if magic != _MAGIC or version != _VERSION or value(bytes(view[8 : _HEAD.size])) != crc:
        raise ValueError("the index is damaged or of another version")
    return SegmentSummary(base, end, chain, first_ms, last_ms), words_crc, queues
