"""The sections that were read last, taken apart: groups that are about as far in a topic share them."""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class OpenSections(Generic[T]):
    """By their positions in the log. At least the newest one is kept."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        self._sections: OrderedDict[int, tuple[T, int]] = OrderedDict()

    def get(self, position: int) -> T | None:
        found = self._sections.get(position)
        if found is None:
            return None
        self._sections.move_to_end(position)
        return found[0]

    def add(self, position: int, section: T, size_bytes: int) -> T:
        _, before_bytes = self._sections.pop(position, (None, 0))
        self._sections[position] = section, size_bytes
        self._size_bytes += size_bytes - before_bytes
        while self._size_bytes > self._limit_bytes and len(self._sections) > 1:
            _, (_, gone_bytes) = self._sections.popitem(last=False)
            self._size_bytes -= gone_bytes
        return section
