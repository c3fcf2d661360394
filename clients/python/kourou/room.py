"""A bound on messages that are held for one reason, in number and size."""

from __future__ import annotations

import asyncio


class Room:
    """There is room while both limits are unreached; what comes with one poll or credit may go beyond them."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self.max_count = max_count
        self.max_bytes = max_bytes
        self._count = self._bytes = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def count(self) -> int:
        return self._count

    async def wait(self, max_count: int | None = None) -> None:
        """Returns when there is room; with less than `max_count` held, if that is lower."""
        limit = self.max_count if max_count is None else min(max_count, self.max_count)
        while not self._has_room(limit):
            free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((limit, free))
            await free

    def take(self, count: int, size_bytes: int) -> None:
        self._count += count
        self._bytes += size_bytes

    def release(self, count: int, size_bytes: int) -> None:
        self._count -= count
        self._bytes -= size_bytes
        if self._waiting:
            self._wake()

    def _has_room(self, limit: int) -> bool:
        return self._count < limit and self._bytes < self.max_bytes

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for limit, free in waiting:
            if free.done():
                continue
            if self._has_room(limit):
                free.set_result(None)
            else:
                self._waiting.append((limit, free))
