"""A bound on what waits to be sent or answered."""

from __future__ import annotations

import asyncio
from collections import deque

from kourou.message import Message

OVERHEAD_BYTES = 512
"""Of a message beside what it says, about."""


class Memory:
    """Who comes when it is used up waits."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def is_full(self) -> bool:
        return self._used_bytes >= self._max_bytes

    def take(self, message: Message) -> None:
        """The one that fills it may go beyond the limit."""
        self._used_bytes += message.size_bytes + OVERHEAD_BYTES

    def release(self, message: Message) -> None:
        self._used_bytes -= message.size_bytes + OVERHEAD_BYTES
        if self._waiting:
            self._wake()

    async def room(self) -> None:
        """Returns when there is room, if nobody else takes it first."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def close(self) -> None:
        """Those who wait are let in, to hear that the client was closed."""
        self._max_bytes = 1 << 62
        self._wake()

    def _wake(self) -> None:
        """All of them: few wait, and those who find no room any more wait again."""
        if self.is_full:
            return
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
