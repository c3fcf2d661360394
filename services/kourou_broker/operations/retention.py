"""Retention: whole segments go by age and by size; what is still pending in them is first carried forward."""

import asyncio

import structlog

from kourou_broker.log.log import Log
from kourou_broker.log.section import MESSAGE_ROW
from kourou_broker.operations.held_carrying import HeldCarrying
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.section_reader import SectionReader
from kourou_broker.operations.slices import in_slices
from kourou_broker.operations.snapshots import Snapshots
from kourou_broker.state import State, records
from kourou_broker.state.definitions import Queue
from kourou_service.clock import Clock

_logger = structlog.stdlib.get_logger(__name__)
_CARRIED_A_TURN = 64
_TRIMMED_A_TURN = 1024
"""Queues."""


class Retention:
    """retention_ms and retention_bytes: 0 keeps for ever."""

    def __init__(
        self,
        *,
        state: State,
        log: Log,
        journal: Journal,
        reader: SectionReader,
        snapshots: Snapshots,
        held: HeldCarrying,
        clock: Clock,
        retention_ms: int,
        retention_bytes: int,
        interval_s: float,
    ) -> None:
        self._state = state
        self._log = log
        self._journal = journal
        self._reader = reader
        self._snapshots = snapshots
        self._held = held
        self._clock = clock
        self._retention_ms = retention_ms
        self._retention_bytes = retention_bytes
        self._interval_s = interval_s

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.check()
            except Exception:
                _logger.exception("retention or a snapshot failed; it is tried again")

    async def check(self) -> None:
        """Takes a snapshot when one is due, and drops the segments whose time has come."""
        await self._snapshots.take_if_due()
        wanted = self._expired_before()
        await self._snapshots.allow(wanted)
        boundary = self._kept_for_backup(self._boundary(min(wanted, self._snapshots.droppable)))
        if boundary > self._log.first_position:
            await self._drop_before(boundary)

    def _expired_before(self) -> int:
        """Where the log should begin by age and size."""
        segments = [segment for segment in self._log.segments() if segment.sealed]
        oldest_ms = self._clock.now_ms() - self._retention_ms
        # What is held cannot go: without room for it the same messages would be copied forward again and again.
        most_bytes = self._retention_bytes + 2 * self._held.carried_bytes
        position = self._log.first_position
        for segment in segments:
            too_old = self._retention_ms and segment.last_stored_ms < oldest_ms
            too_much = self._retention_bytes and self._log.next_position - segment.base > most_bytes
            if not (too_old or too_much):
                break
            position = segment.end
        return position

    def _boundary(self, position: int) -> int:
        """The last place at or below position where a segment ends."""
        ends = [segment.end for segment in self._log.segments() if segment.sealed and segment.end <= position]
        return ends[-1] if ends else 0

    def _kept_for_backup(self, boundary: int) -> int:
        """What a backup has not copied yet waits for it, but not on a full disk."""
        kept_from = self._log.kept_from
        if kept_from is None or kept_from >= boundary:
            return boundary
        if self._log.writable_messages:
            return kept_from
        self._log.kept_from = None
        return boundary

    async def _drop_before(self, boundary: int) -> None:
        first = self._log.first_offsets(boundary)  # what comes from now on is above the boundary
        topics = list(self._state.topics.values())
        trimmed: list[tuple[Queue, int]] = []
        async for queue in in_slices(queue for topic in topics for queue in list(topic.all_queues())):
            keep_from = first.get((queue.topic.id, queue.id), queue.first_offset)  # else nothing of it goes
            if keep_from > queue.first_offset or queue.carried:
                trimmed.append((queue, keep_from))
        await self._held.carry_below(boundary)
        for start in range(0, max(len(trimmed), 1), _TRIMMED_A_TURN):
            await self._trim(trimmed[start : start + _TRIMMED_A_TURN], boundary)
        await self._journal.durable()
        await self._log.drop_before(boundary)
        _logger.info("dropped old segments", up_to=boundary, queues=len(trimmed))

    async def _trim(self, some: list[tuple[Queue, int]], boundary: int) -> None:
        """Lets go of what lies below in some queues."""
        await self._carry_all(some, boundary)  # last: until the next line nobody is lent anything
        self._journal.emit(
            records.trim(boundary, [(queue.topic.id, queue.id, keep_from) for queue, keep_from in some]),
            freeing=True,
        )
        await asyncio.sleep(0)

    async def _carry_all(self, trimmed: list[tuple[Queue, int]], boundary: int) -> None:
        """Copies all that groups hold below, also what they are lent meanwhile: on return nothing is missing."""
        seen: set[tuple[Queue, int]] = set()
        while missing := [
            (queue, offset)
            for queue, keep_from in trimmed
            for offset in self._pending(queue, keep_from, boundary)
            if (queue, offset) not in seen
        ]:
            seen.update(missing)
            for number, (queue, offset) in enumerate(missing, 1):
                await self._carry(queue, offset)
                if number % _CARRIED_A_TURN == 0:
                    await asyncio.sleep(0)

    def _pending(self, queue: Queue, keep_from: int, boundary: int) -> list[int]:
        """What groups hold below keep_from of which there is no copy above the boundary."""
        pending: set[int] = set()
        for progress in self._state.progress.of_queue(queue.topic.id, queue.id):
            pending.update(progress.pending)  # a thousand groups may hold the same: only then each is looked at
        copies = {offset for offset, copy in queue.carried.items() if copy.position >= boundary}
        return sorted(offset for offset in pending - copies if offset < keep_from)

    async def _carry(self, queue: Queue, offset: int) -> None:
        message = await self._reader.message(queue, offset)
        if message is not None:
            row = MESSAGE_ROW.pack(len(message.head), len(message.tail), message.tag_hash)
            body = message.head + message.tail
            self._journal.carry(records.carry(queue.topic.id, queue.id, offset, message.stored_ms, row, body))
