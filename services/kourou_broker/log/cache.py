"""The tail cache: what was sealed last, for those who read what was just written."""

from bisect import bisect_right
from collections.abc import Iterable


class TailCache:
    """The pieces of frames' bodies in the order of the log. What is not yet on the medium is always kept."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._positions: list[int] = []
        self._pieces: list[bytes] = []
        self._first = 0

    def add(self, position: int, body: Iterable[bytes]) -> None:
        """Keep the body of a frame; `position` is the log position of its first byte."""
        for piece in body:
            self._positions.append(position)
            self._pieces.append(piece)
            position += len(piece)
            self._bytes += len(piece)

    def evict(self, written: int) -> None:
        """Let the oldest go until the limit holds, but nothing at or after the log position `written`."""
        first, last = self._first, len(self._pieces)
        while self._bytes > self._limit_bytes and first < last and self._positions[first] < written:
            self._bytes -= len(self._pieces[first])
            self._pieces[first] = b""
            first += 1
        self._first = first
        # The lists move rarely, and then by much: one move costs as much as the list is long.
        if first > 1024 and first > last - first:
            del self._positions[:first], self._pieces[:first]
            self._first = 0

    def read(self, position: int, length: int) -> bytes | None:
        """That range of the log, if one cached frame holds it."""
        number = bisect_right(self._positions, position) - 1
        if number < self._first:
            return None
        at, piece = position - self._positions[number], self._pieces[number]
        if at + length <= len(piece):
            return piece[at : at + length]
        return self._read_on(number, at, length)

    def _read_on(self, number: int, at: int, length: int) -> bytes | None:
        """The same, from a place in a piece on into those that follow it without a gap."""
        views: list[memoryview] = []
        end = self._positions[number]
        for next_one in range(number, len(self._pieces)):
            if self._positions[next_one] != end:
                return None
            piece = self._pieces[next_one]
            views.append(memoryview(piece)[at : at + length])
            length -= len(views[-1])
            if not length:
                return b"".join(views)
            at, end = 0, end + len(piece)
        return None
