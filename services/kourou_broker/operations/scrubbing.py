"""Scrubbing: sealed segments are verified again and again: damage is known before somebody needs what it hit."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from kourou_broker.log.log import Log

_logger = structlog.stdlib.get_logger(__name__)


class Scrubbing:
    """scrub verifies the segment at a base outside of this process, and says what is wrong; one in each interval."""

    def __init__(self, log: Log, scrub: Callable[[int], Awaitable[str | None]], interval_s: float) -> None:
        self._log = log
        self._scrub = scrub
        self._interval_s = interval_s
        self._last = -1
        self.damaged: set[int] = set()
        """The bases of segments that were found damaged."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.check()
            except Exception:
                _logger.exception("a segment could not be verified; it is tried again")

    async def check(self) -> str | None:
        """Verifies the next sealed segment, the first one after the last; -> what is wrong with it."""
        bases = [segment.base for segment in self._log.segments() if segment.sealed]
        if not bases:
            return None
        base = next((base for base in bases if base > self._last), bases[0])
        damage = await self._scrub(base)
        self._last = base
        if damage is not None:
            self.damaged.add(base)
            _logger.error("a sealed segment is damaged: what it holds may be unreadable", damage=damage)
        return damage
