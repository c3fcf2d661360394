"""Sealed segments get their indexes of ids, keys and histories soon after: no question waits for them."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from kourou_broker.log.log import Log

_logger = structlog.stdlib.get_logger(__name__)
_LOOK_EVERY_S = 1.0
_RETRY_AFTER_S = 60.0


class Indexing:
    """index builds what is missing for the segment at a base, outside of this process; it is asked for one at a time.

    forget deletes what was built for a segment that was dropped meanwhile.
    """

    def __init__(
        self, log: Log, *, index: Callable[[int], Awaitable[None]], forget: Callable[[int], Awaitable[None]]
    ) -> None:
        self._log = log
        self._index = index
        self._forget = forget
        self._indexed: set[int] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            wait_s = _LOOK_EVERY_S
            try:
                await self.check()
            except Exception:
                _logger.exception("a segment could not be indexed; it is tried again")
                wait_s = _RETRY_AFTER_S
            await asyncio.sleep(wait_s)

    async def check(self) -> None:
        """Returns when all sealed segments have their indexes, the newest first; on a full disk they must wait."""
        while self._log.writable_messages and (missing := self._missing()):
            base = missing[-1]
            await self._index(base)
            if base < self._log.first_position:
                await self._forget(base)
            self._indexed.add(base)

    def _missing(self) -> list[int]:
        synced = self._log.synced_position
        sealed = [segment.base for segment in self._log.segments() if segment.sealed and segment.end <= synced]
        self._indexed.intersection_update(sealed)
        return [base for base in sealed if base not in self._indexed]
