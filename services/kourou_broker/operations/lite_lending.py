"""Lending the messages of lite topics: of each strictly in order, nothing more before all that is lent is settled."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import groupby

from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.operations.lending import Context, Lending
from kourou_broker.operations.lite_leases import LiteLeases
from kourou_broker.operations.poll import Batch, Delivery, Poll
from kourou_broker.operations.section_reader import StoredMessage
from kourou_broker.state import Fate
from kourou_broker.state.definitions import Group, Queue, Topic
from kourou_broker.state.progress import Progress
from kourou_broker.state.records import Lease

_LOOK_AGAIN_MS = 1000
"""A lite topic that could not be dealt with, as when the disk failed to be read, comes up again after this."""
_LOOKS_A_TURN = 256
_MOST_IN_A_ROW = 32
"""Messages of one lite topic in one answer, at most: those of other lite topics shall have their turn."""


class LiteLending(Lending):
    def __init__(
        self, context: Context, group: Group, topic: Topic, leases: LiteLeases, ready: Callable[[int], None]
    ) -> None:
        """ready: called with a queue that may have something to lend."""
        super().__init__(context, group, topic, leases, lambda: None)
        self._leases = leases
        self._ready = ready
        self._looks = 0
        self._lent: dict[int, set[int]] = {}
        """By queue, what is lent and what was settled since without the disk knowing yet."""

    async def take(self, queue: Queue, poll: Poll, batch: Batch) -> None:
        self._looks += 1
        if self._looks % _LOOKS_A_TURN == 0:
            await asyncio.sleep(0)  # who just said what he reads may have thousands of lite topics to be looked at
        if not self._has_more(queue):
            return
        taken = len(batch.deliveries)
        try:
            if not self._is_blocked(queue):
                await self._take_next(queue, poll, batch)
        except BaseException:
            self._look_again_soon(queue)
            raise
        if len(batch.deliveries) > taken or not self._has_more(queue) or self._is_blocked(queue):
            return
        if poll.answer.done():
            self._ready(queue.id)  # the client went meanwhile: another one may have it
        else:
            self._look_again_soon(queue)  # the disk is full, or not as far yet

    async def lend_again(self, queue: Queue, poll: Poll, lease: Lease) -> Delivery | None:
        delivery = await super().lend_again(queue, poll, lease)
        if delivery is not None:
            self._leases.ended(lease)
        return delivery

    def grant(self, queue: Queue, lease: Lease, messages: Sequence[StoredMessage], high: int) -> Delivery:
        delivery = super().grant(queue, lease, messages, high)
        self._lent.setdefault(queue.id, set()).update(lease.offsets)
        return delivery

    def settled(self, queue: int, offsets: Sequence[int]) -> None:
        lent = self._lent.get(queue)
        if lent is not None:
            lent.difference_update(offsets)
            if not lent:
                del self._lent[queue]
        self._ready(queue)

    def offset_set(self, queue: int) -> None:
        """What was pending in the queue is so no more."""
        self._lent.pop(queue, None)

    def offsets_set(self) -> None:
        self._lent.clear()

    def _is_blocked(self, queue: Queue) -> bool:
        """Whether something of it is lent, or settled without the disk knowing: then it comes up again by itself."""
        progress = self.progress(queue)
        pending = progress.pending if progress is not None else {}
        if any(offset not in pending and offset >= queue.first_offset for offset in self._lent.get(queue.id, ())):
            return True  # `settled` is called soon
        now_ms = self._context.clock.now_ms()
        until_ms = max((self._leases.lent_until(lease, now_ms) for lease in set(pending.values())), default=0)
        if until_ms:
            self._leases.look_at(queue.id, until_ms)
        return until_ms > 0

    def _has_more(self, queue: Queue) -> bool:
        progress = self.progress(queue)
        if progress is None:
            return queue.first_offset < queue.next_offset
        return bool(progress.pending) or progress.high < queue.next_offset

    def _look_again_soon(self, queue: Queue) -> None:
        self._leases.look_at(queue.id, self._context.clock.now_ms() + _LOOK_AGAIN_MS)

    async def _take_next(self, queue: Queue, poll: Poll, batch: Batch) -> None:
        """What was lent before and is due, then what is fresh."""
        row = Batch(min(batch.room, self._most_in_a_row), batch.room_bytes)
        progress = self.progress(queue)
        try:
            nothing_older = progress is None or not progress.pending
            if nothing_older or (progress and await self._take_pending(queue, progress, poll, row)):
                await self._take_fresh(queue, poll, row)
        finally:
            for delivery in row.deliveries:
                batch.add(delivery)

    @property
    def _most_in_a_row(self) -> int:
        """Clients of a group without order work on the messages of an answer at the same time."""
        return _MOST_IN_A_ROW if self._group.definition.order == record_pb2.ORDER_FIFO else 1

    async def _take_pending(self, queue: Queue, progress: Progress, poll: Poll, row: Batch) -> bool:
        """Whether fresh messages may follow: nothing older is left out."""
        offsets = sorted(progress.pending)[: row.room]
        found = [(progress.pending[offset], await self._context.reader.message(queue, offset)) for offset in offsets]
        if poll.answer.done() or self.progress(queue) is not progress:
            return False
        gone = [offset for offset, (_lease, message) in zip(offsets, found, strict=True) if message is None]
        if gone:
            self._context.journal.settle_now(progress, gone, Fate.EXPIRED)
        due = [(lease, each) for lease, each in found if each and progress.pending.get(each.offset) is lease]
        spent = [each for lease, each in due if lease.attempt >= self._group.max_attempts]
        if gone or spent:
            self._bury(progress, spent)
            return False  # what follows is lent when the disk knows
        for lease, messages in groupby(due, key=lambda each: each[0]):
            self._leases.ended(lease)
            row.add(self._lend(queue, poll, [each for _lease, each in messages], lease.attempt + 1, progress.high))
        return len(due) == len(progress.pending) and not row.full and not poll.answer.done()
