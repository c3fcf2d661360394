"""The tail cache: the frames sealed last, for those who read what was just written."""

from bisect import bisect_right


class TailCache:
    """Frames in the order of the log. What is not yet on the medium is always kept."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._positions: list[int] = []
        self._bodies: list[bytes] = []
        self._first = 0

    def add(self, position: int, body: bytes) -> None:
        """Keep the body of a frame; `position` is the log position of the body's first byte."""
        self._positions.append(position)
        self._bodies.append(body)
        self._bytes += len(body)

    def evict(self, written: int) -> None:
        """Let the oldest go until the limit holds, but nothing at or after the log position `written`."""
        first, last = self._first, len(self._bodies)
        while self._bytes > self._limit_bytes and first < last and self._positions[first] < written:
            self._bytes -= len(self._bodies[first])
            self._bodies[first] = b""
            first += 1
        self._first = first
        # The lists move rarely, and then by much: one move costs as much as the list is long.
        if first > 1024 and first > last - first:
            del self._positions[:first], self._bodies[:first]
            self._first = 0

    def read(self, position: int, length: int) -> bytes | None:
        """That range of the log, if one cached frame holds it."""
        number = bisect_right(self._positions, position) - 1
        if number < self._first:
            return None
        body = self._bodies[number]
        at = position - self._positions[number]
        return body[at : at + length] if at + length <= len(body) else None
