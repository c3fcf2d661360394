"""Delayed messages whose time has not come.

There may be millions, so one is a single int, packed as due time, origin, place: a million takes some 70 MB. Origin is
where the message was first stored; with the due time it names the message for good, in records and in recall handles.
Place is where it is now: another one once it was carried out of a segment that was dropped.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sortedcontainers import SortedList


class Place(NamedTuple):
    """The log position of a section, and which of its messages."""

    position: int
    index: int  # pyright: ignore[reportIncompatibleMethodOverride] (the tuple's own index is of no use)


class Timer(NamedTuple):
    due_ms: int
    origin: Place
    place: Place


_INDEX_BITS = 24
_POSITION_BITS = 56
_PLACE_BITS = _POSITION_BITS + _INDEX_BITS
_INDEX_MASK = (1 << _INDEX_BITS) - 1
_PLACE_MASK = (1 << _PLACE_BITS) - 1


class Timers:
    """Those of one topic, in the order of their due times, then of their origins."""

    def __init__(self) -> None:
        self._packed: SortedList[int] = SortedList()

    def __len__(self) -> int:
        return len(self._packed)

    def __iter__(self) -> Iterator[Timer]:
        return map(_unpack, self._packed)

    @property
    def first_due_ms(self) -> int | None:
        return self._packed[0] >> 2 * _PLACE_BITS if self._packed else None

    def add(self, timers: Iterable[Timer]) -> None:
        self._packed.update(map(_pack, timers))

    def numbers(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Due time, position and index of the origin, then of the place: for walks over millions, without objects."""
        for packed in self._packed:
            origin, place = packed >> _PLACE_BITS & _PLACE_MASK, packed & _PLACE_MASK
            yield (
                packed >> 2 * _PLACE_BITS,
                origin >> _INDEX_BITS,
                origin & _INDEX_MASK,
                place >> _INDEX_BITS,
                place & _INDEX_MASK,
            )

    @classmethod
    def of_numbers(cls, rows: Iterable[tuple[int, int, int, int, int]]) -> "Timers":
        timers = cls()
        timers._packed.update(
            (((due_ms << _POSITION_BITS | first) << _INDEX_BITS | first_index) << _POSITION_BITS | position)
            << _INDEX_BITS
            | index
            for due_ms, first, first_index, position, index in rows
        )
        return timers

    def due(self, now_ms: int, limit: int, last: Timer | None = None) -> list[Timer]:
        """The first ones whose time has come, of those behind `last`."""
        start, end = self._behind(last), self._packed.bisect_left(_key(now_ms + 1, _NOWHERE))
        return list(map(_unpack, self._packed[start : min(end, start + limit)]))

    def count_due(self, until_ms: int) -> int:
        """Those whose time has come by then."""
        return self._packed.bisect_left(_key(until_ms + 1, _NOWHERE))

    def find(self, due_ms: int, origin: Place) -> Timer | None:
        key = _key(due_ms, origin)
        at = self._packed.bisect_left(key)
        if at < len(self._packed) and self._packed[at] >> _PLACE_BITS == key >> _PLACE_BITS:
            return _unpack(self._packed[at])
        return None

    def remove(self, due_ms: int, origin: Place) -> None:
        """Nothing happens if it is not there."""
        timer = self.find(due_ms, origin)
        if timer is not None:
            self._packed.remove(_pack(timer))

    def move(self, due_ms: int, origin: Place, place: Place) -> None:
        """It was carried to that place. Nothing happens if it is not there any more."""
        timer = self.find(due_ms, origin)
        if timer is not None:
            self._packed.remove(_pack(timer))
            self._packed.add(_pack(timer._replace(place=place)))

    def following(self, last: Timer | None, limit: int) -> list[Timer]:
        """The next ones behind `last`, or the first ones: for walks in steps between which timers come and go."""
        start = self._behind(last)
        return list(map(_unpack, self._packed[start : start + limit]))

    def _behind(self, last: Timer | None) -> int:
        return 0 if last is None else self._packed.bisect_left(_key(last.due_ms, last.origin) + (1 << _PLACE_BITS))


_NOWHERE = Place(0, 0)


def _key(due_ms: int, origin: Place) -> int:
    """What all packed timers of that origin are not below."""
    return ((due_ms << _POSITION_BITS | origin.position) << _INDEX_BITS | origin.index) << _PLACE_BITS


def _pack(timer: Timer) -> int:
    return _key(timer.due_ms, timer.origin) | timer.place.position << _INDEX_BITS | timer.place.index


def _unpack(packed: int) -> Timer:
    place = packed & _PLACE_MASK
    packed >>= _PLACE_BITS
    origin = packed & _PLACE_MASK
    return Timer(
        packed >> _PLACE_BITS,
        Place(origin >> _INDEX_BITS, origin & _INDEX_MASK),
        Place(place >> _INDEX_BITS, place & _INDEX_MASK),
    )
