"""Which records of one segment say something of which messages, as a derived blob.

A row says that the record at a log position concerns a group and some offsets of a queue. There are two sorts:
spans, a few neighbouring offsets, found by halves; and sweeps, which concern a whole queue up to a bound, such as an
offset that is set: these are few, and all of them are read.

A head, then 64-bit words in the machine's own order:
    keys of all n queues, ascending                         n words    (key: topic << 32 | queue)
    for each: its first word, spans, sweeps, crc of them   4 n words
    for each: the first offsets of its spans, ascending; then for each span: place << 32 | group,
              stored_ms << 16 | kind << 10 | offsets - 1; then for each sweep: bound, place << 32 | group,
              stored_ms << 16 | kind << 10
A place is an offset within the segment. What a row says may be too much: the reader looks at the record.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from kourou_broker.log.checksum import value, value_of_part
from kourou_broker.log.index import queue_key

_MAGIC = b"KRUh"
_VERSION = 1
# magic, version, crc of keys and directory, queues, base of the segment
_HEAD = Struct("=4sIIIQ")
_LOW = 0xFFFFFFFF
_MAX_SPAN = 1 << 10
"""Longer ones are cut: so a search knows how far back a span that holds an offset can begin."""
_MAX_BOUND = (1 << 64) - 1
NO_GROUP = 0
"""Of a record that concerns all groups."""


class Row(NamedTuple):
    """A record that says something of a message, or may."""

    position: int
    stored_ms: int
    kind: int
    group: int
    bound: int | None
    """Of a sweep: it concerns the offsets below, or what else its kind makes of it; None for a span."""


class GrowingHistory:
    """The rows of the segment at `base` while its records are read, in the order of the log."""

    def __init__(self, base: int) -> None:
        self._base = base
        self._spans: dict[int, list[tuple[int, int, Row]]] = {}
        self._sweeps: dict[int, list[Row]] = {}

    def span(self, topic: int, queue: int, first: int, last: int, row: Row) -> None:
        """The record concerns the offsets from `first` up to and including `last`."""
        self._spans.setdefault(queue_key(topic, queue), []).append((first, last, row))

    def sweep(self, topic: int, queue: int, row: Row) -> None:
        """The record concerns the whole queue, up to the row's bound."""
        self._sweeps.setdefault(queue_key(topic, queue), []).append(row)

    def rows(self, topic: int, queue: int, offset: int) -> list[Row]:
        """What may say something of that offset, in the order of the log; a record may come twice."""
        key = queue_key(topic, queue)
        found = [row for first, last, row in self._spans.get(key, ()) if first <= offset <= last]
        return sorted((*found, *self._sweeps.get(key, ())), key=lambda row: row.position)

    def seal(self) -> bytes:
        """The blob."""
        keys = array("Q", sorted(self._spans.keys() | self._sweeps.keys()))
        directory = array("Q")
        parts: list[bytes] = []
        word = 5 * len(keys)
        for key in keys:
            spans = sorted(cut for span in self._spans.get(key, ()) for cut in self._cut(*span))
            sweeps = self._sweeps.get(key, ())
            words = array("Q", (first for first, _, _ in spans))
            words.extend(number for _, place, rest in spans for number in (place, rest))
            words.extend(number for row in sweeps for number in self._words_of_sweep(row))
            part = words.tobytes()
            directory.extend((word, len(spans), len(sweeps), value(part)))
            parts.append(part)
            word += len(words)
        head = keys.tobytes() + directory.tobytes()
        return b"".join((_HEAD.pack(_MAGIC, _VERSION, value(head), len(keys), self._base), head, *parts))

    def _cut(self, first: int, last: int, row: Row) -> Iterator[tuple[int, int, int]]:
        place = row.position - self._base << 32 | row.group
        rest = row.stored_ms << 16 | row.kind << 10
        for start in range(first, last + 1, _MAX_SPAN):
            yield start, place, rest | min(last - start, _MAX_SPAN - 1)

    def _words_of_sweep(self, row: Row) -> tuple[int, int, int]:
        bound = _MAX_BOUND if row.bound is None else row.bound
        return bound, row.position - self._base << 32 | row.group, row.stored_ms << 16 | row.kind << 10


class SealedHistory:
    """The rows as read back. ValueError if the blob is not that of the segment; a damaged part shows when read."""

    def __init__(self, view: memoryview, base: int) -> None:
        if len(view) < _HEAD.size:
            raise ValueError("the history index is too short")
        magic, version, crc, queues, of_base = _HEAD.unpack_from(view)
        words = view[_HEAD.size :]
        head = words[: 40 * queues]
        if (magic, version, of_base, len(head)) != (_MAGIC, _VERSION, base, 40 * queues) or value_of_part(head) != crc:
            raise ValueError("the history index is damaged or of another version")
        if len(words) % 8:
            raise ValueError("the history index is cut off")
        self._base = base
        self._words = words.cast("Q")
        self._queues = queues

    def rows(self, topic: int, queue: int, offset: int) -> list[Row]:
        """As GrowingHistory.rows. Raises ValueError for a damaged part."""
        key = queue_key(topic, queue)
        number = bisect_left(self._words[: self._queues], key)
        if number == self._queues or self._words[number] != key:
            return []
        at = self._queues + 4 * number
        word, spans, sweeps, crc = self._words[at : at + 4]
        part = self._words[word : word + 3 * (spans + sweeps)]
        if value_of_part(part) != crc:
            raise ValueError("the history index is damaged")
        found = [*self._spans(part, spans, offset), *self._sweeps(part[3 * spans :])]
        return sorted(found, key=lambda row: row.position)

    def _spans(self, part: Sequence[int], spans: int, offset: int) -> Iterator[Row]:
        firsts = part[:spans]
        for number in range(bisect_right(firsts, offset - _MAX_SPAN), bisect_right(firsts, offset)):
            place, rest = part[spans + 2 * number], part[spans + 2 * number + 1]
            if offset <= firsts[number] + (rest & _MAX_SPAN - 1):
                yield self._row(place, rest, None)

    def _sweeps(self, part: Sequence[int]) -> Iterable[Row]:
        return (self._row(part[at + 1], part[at + 2], part[at]) for at in range(0, len(part), 3))

    def _row(self, place: int, rest: int, bound: int | None) -> Row:
        return Row(self._base + (place >> 32), rest >> 16, rest >> 10 & 63, place & _LOW, bound)


def history_blob(base: int) -> str:
    """The name of the blob with the history index of that segment."""
    return f"history-{base:016x}"
