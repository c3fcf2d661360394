"""Which dead letters of a queue were given back to their group."""

from collections.abc import Iterable


class Resent:
    """Offsets of a dead-letter queue. Those from the oldest on without a gap are one number, which is nearly all."""

    __slots__ = ("below", "offsets")

    def __init__(self, below: int = 0, offsets: Iterable[int] = ()) -> None:
        self.below = below
        """All letters below were resent, or are not there any more."""
        self.offsets = set(offsets)

    def __contains__(self, offset: int) -> bool:
        return offset < self.below or offset in self.offsets

    def add(self, offset: int) -> None:
        if offset >= self.below:
            self.offsets.add(offset)
            self._close_gap()

    def trim(self, first_offset: int) -> None:
        """Letters below have expired."""
        if first_offset > self.below:
            self.below = first_offset
            self.offsets = {offset for offset in self.offsets if offset >= first_offset}
            self._close_gap()

    def _close_gap(self) -> None:
        while self.below in self.offsets:
            self.offsets.remove(self.below)
            self.below += 1
