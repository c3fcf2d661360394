"""Snapshots: they bound the time of a start, and let old segments go."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from kourou_broker.log.log import Log
from kourou_broker.log.medium import Medium
from kourou_broker.state import fold

T = TypeVar("T")
InBackground = Callable[[Callable[[], T]], Awaitable[T]]


class Snapshots:
    """fold_to makes the snapshot of a log position, outside of this process; in_background runs what blocks."""

    def __init__(
        self,
        log: Log,
        medium: Medium,
        *,
        every_bytes: int,
        fold_to: Callable[[int], Awaitable[bytes]],
        in_background: InBackground[None],
    ) -> None:
        self._log = log
        self._medium = medium
        self._every_bytes = every_bytes
        self._fold_to = fold_to
        self._in_background = in_background
        # One too many may be left by a crash before the oldest was dropped; it goes with the next.
        self._positions = fold.snapshots(medium)

    @property
    def droppable(self) -> int:
        """Segments that end at or below this position are needed by no generation."""
        return self._positions[fold.GENERATIONS - 1] if len(self._positions) >= fold.GENERATIONS else 0

    @property
    def newest(self) -> int:
        """The log position of the newest one: a start reads the log from there on."""
        return self._positions[0] if self._positions else 0

    async def take_if_due(self) -> None:
        ends = self._sealed_ends()
        if ends and ends[-1] - (self._positions[0] if self._positions else 0) >= self._every_bytes:
            await self.take()

    async def take(self) -> None:
        """Makes a snapshot at the end of the last sealed segment, and drops the generation before the last."""
        await self._take_at(self._sealed_ends())

    async def allow(self, wanted: int) -> None:
        """Makes room for dropping what ends at or below wanted, or nearly all of it.

        Two generations that differ are needed: in a log that stands still the older one is brought up to the newer one.
        """
        if wanted > self.droppable:
            await self.take()
        if wanted > self.droppable and self._positions:
            await self._take_at([end for end in self._sealed_ends() if end <= wanted and end < self._positions[0]])

    async def _take_at(self, ends: list[int]) -> None:
        """At the last of these ends of segments, unless that is no progress."""
        if not ends or ends[-1] in self._positions or ends[-1] <= self.droppable:
            return
        position = ends[-1]
        data = await self._fold_to(position)
        await self._in_background(lambda: self._medium.write_blob(fold.snapshot_name(position), data))
        self._positions = sorted((*self._positions, position), reverse=True)
        for old in self._positions[fold.GENERATIONS :]:
            await self._in_background(lambda old=old: self._medium.drop_blob(fold.snapshot_name(old)))
        del self._positions[fold.GENERATIONS :]

    def _sealed_ends(self) -> list[int]:
        """Where the segments end that nothing is written to any more, and that the disk has for good."""
        durable = self._log.synced_position
        return [segment.end for segment in self._log.segments() if segment.sealed and segment.end <= durable]
