"""A bound on messages that are held for one reason, in number and size."""

from __future__ import annotations

import asyncio


class Room:
    """There is room while both limits are unreached; what comes with one poll or credit may go beyond them."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self.max_count = max_count
        self.max_bytes = max_bytes
        self._count = self._bytes = 0
        self._free = asyncio.Event()
        self._free.set()

    @property
    def count(self) -> int:
        return self._count

    async def wait(self) -> None:
        """Returns when there is room."""
        await self._free.wait()

    def take(self, count: int, size_bytes: int) -> None:
        self._count += count
        self._bytes += size_bytes
        if self._count >= self.max_count or self._bytes >= self.max_bytes:
            self._free.clear()

    def release(self, count: int, size_bytes: int) -> None:
        self._count -= count
        self._bytes -= size_bytes
        if self._count < self.max_count and self._bytes < self.max_bytes:
            self._free.set()
