"""A histogram that costs a bisection and two additions a value: the hot paths of a broker count with it."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Histogram:
    """Counted on the event loop alone, so it needs no lock."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the upper ends of the buckets, ascending, each inclusive; one more bucket takes what is above.

        Raises ValueError for bounds that do not ascend.
        """
        self.bounds = tuple(map(float, bounds))  # floats are compared with each other twice as fast as with integers
        if any(low >= high for low, high in zip(self.bounds, self.bounds[1:], strict=False)):
            raise ValueError(f"the bounds {self.bounds} do not ascend")
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def __add__(self, other: "Histogram") -> "Histogram":
        """What both have counted; they must have the same bounds."""
        both = Histogram(self.bounds)
        both.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        both.sum = self.sum + other.sum
        return both

    def cumulative(self) -> list[tuple[float, int]]:
        """(upper end, values up to it), the last one's end is infinite."""
        return list(zip((*self.bounds, float("inf")), accumulate(self.counts), strict=True))
