"""Lending a topic's messages to one group, a queue at a time: what is due again, then what is fresh."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from kourou_broker.operations.dead_letter import DeadLetters
from kourou_broker.operations.due_leases import DueLeases
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.matching import MatchingReader
from kourou_broker.operations.poll import Batch, Delivery, Poll
from kourou_broker.operations.section_reader import SectionReader, StoredMessage, offsets_of
from kourou_broker.operations.traffic import Traffic
from kourou_broker.state import Fate, State, records
from kourou_broker.state.definitions import Group, Queue, Topic
from kourou_broker.state.progress import Progress
from kourou_broker.state.records import Lease
from kourou_service.clock import Clock
from kourou_service.refusal import Refused

_LOOK_AGAIN_MS = 1000
"""A lease that came up and could not be dealt with, as when the disk failed to be read, comes up again after this."""


class LeaseNumbers:
    """The names of this run's leases: no other run of any broker gives the same."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self._last = 0

    def next(self) -> int:
        self._last += 1
        return self._last


class Context(NamedTuple):
    """What all subscriptions work with."""

    state: State
    journal: Journal
    reader: SectionReader
    dead_letters: DeadLetters
    clock: Clock
    numbers: LeaseNumbers
    traffic: Traffic
    may_live: Callable[[str], bool]
    """Whether the client with this id is not known to be gone."""
    begin: Callable[[Group, Topic], Awaitable[None]]
    """Sees to it that a group which reads a topic for the first time starts in the right place."""
    max_pending: int
    """Messages of one queue lent, due or held back at a time; at the bound nothing fresh is lent."""


class Lending:
    """What comes is lent in the order of its coming, and nothing waits for anything else."""

    def __init__(
        self, context: Context, group: Group, topic: Topic, due: DueLeases, look_again: Callable[[], None]
    ) -> None:
        """look_again: called when there may be more to lend than the last look has found."""
        self._context = context
        self._group = group
        self._topic = topic
        self._due = due
        self._look_again = look_again
        self._fresh = MatchingReader(context.reader)

    async def take(self, queue: Queue, poll: Poll, batch: Batch) -> None:
        """Lends the poll what the queue has, as far as there is room in the batch."""
        await self._take_due(queue, poll, batch)
        if poll.takes_all_in_runs:
            await self._take_runs(queue, poll, batch)
        if not batch.full and not poll.answer.done():
            await self._take_fresh(queue, poll, batch)

    async def lend_again(self, queue: Queue, poll: Poll, lease: Lease) -> Delivery | None:
        """What the lease still holds, under a new one and at the same attempt."""
        progress = self.progress(queue)
        if progress is None:
            return None
        found = await self._read_held(progress, queue, lease, held(progress, lease))
        return self._lend(queue, poll, found, lease.attempt, progress.high) if found else None

    def grant(self, queue: Queue, lease: Lease, messages: Sequence[StoredMessage], high: int) -> Delivery:
        """Records the lease; not waited for, since a lease lost in a crash is only an attempt not counted."""
        self._context.journal.note(records.lease(self._group.id, self._topic.id, queue.id, high, lease))
        return self._granted(queue, lease, messages)

    def settled(self, queue: int, offsets: Sequence[int]) -> None:
        """Messages of the queue were settled, and the disk knows."""

    def offsets_set(self) -> None:
        """What was pending in some queues is so no more."""

    def holds_back(self, queue: int, offset: int, lease: Lease) -> bool:
        """Whether a pending message waits for another one."""
        return False

    def oldest_of_message_group(self, queue: int, offset: int) -> int | None:
        """What a message that is held back waits for, if that is known."""
        return None

    def progress(self, queue: Queue) -> Progress | None:
        return self._context.state.progress.get((self._group.id, self._topic.id, queue.id))

    async def _take_due(self, queue: Queue, poll: Poll, batch: Batch) -> None:
        """Messages whose lease has run out, once more; past the group's attempts they become dead letters."""
        context, due = self._context, self._due
        progress = self.progress(queue)
        while progress is not None and not batch.full and not poll.answer.done():
            now_ms = context.clock.now_ms()
            lease = due.take(queue.id, now_ms)
            if lease is None:
                break
            offsets = held(progress, lease)
            if not offsets:
                due.ended(lease)
            elif due.renews(lease, now_ms):
                due.watch(queue.id, lease, now_ms + poll.invisible_ms)
            else:
                due.watch(queue.id, lease, now_ms + _LOOK_AGAIN_MS)  # for what is not settled or lent below
                offsets = self._lendable(queue, offsets)
                found = await self._read_held(progress, queue, lease, offsets[: batch.room])
                if found and lease.attempt >= self._group.max_attempts:
                    self._bury(progress, found)
                elif found and not poll.answer.done():
                    if len(offsets) > batch.room:
                        due.watch(queue.id, lease, now_ms)  # the next poll gets the others
                    batch.add(self._lend(queue, poll, found, lease.attempt + 1, progress.high))

    def _lendable(self, queue: Queue, offsets: list[int]) -> list[int]:
        """Those of the pending messages that may be lent now."""
        return offsets

    async def _read_held(
        self, progress: Progress, queue: Queue, lease: Lease, offsets: Sequence[int]
    ) -> list[StoredMessage]:
        """The messages that the lease still holds when they are read; what is not there any more is settled."""
        found = [await self._context.reader.message(queue, offset) for offset in offsets]
        gone = [offset for offset, message in zip(offsets, found, strict=True) if message is None]
        if gone:
            self._context.journal.settle(progress, gone, Fate.EXPIRED)
        return [message for message in found if message and progress.pending.get(message.offset) is lease]

    async def _take_runs(self, queue: Queue, poll: Poll, batch: Batch) -> None:
        """What is fresh, as long as it lies in batches."""
        while not batch.full and not poll.answer.done():
            start = self._fresh_from(queue)
            if start is None:
                return
            run = await self._fresh.run(queue, start, min(batch.room, self._pending_room(queue)))
            if run is None or poll.answer.done():
                return
            if self._fresh_from(queue) != start:
                self._look_again()  # as below
                return
            batch.add(self._lend(queue, poll, run, 1, run.offsets.stop))

    async def _take_fresh(self, queue: Queue, poll: Poll, batch: Batch) -> None:
        start = self._fresh_from(queue)
        if start is None:
            return
        taken, offset = await self._fresh.read(
            queue,
            start,
            poll.filter,
            batch.room,
            batch.room_bytes,
            lambda: poll.in_haste,
            up_to_batch=poll.takes_all_in_runs,
        )
        progress = self.progress(queue)
        if poll.answer.done() and taken:
            taken, offset = [], taken[0].offset  # what the filter left out need not be read again
        if (progress.high if progress is not None else queue.first_offset) != start:
            self._look_again()  # the offset was set, or messages expired: the next round sees where it is now
        elif offset > start:
            batch.add(self._lend(queue, poll, taken, 1, offset))

    def _fresh_from(self, queue: Queue) -> int | None:
        """Where fresh messages begin that may be lent now; None if there is none."""
        progress = self.progress(queue)
        start = progress.high if progress is not None else queue.first_offset
        return start if start < queue.next_offset and self._pending_room(queue) > 0 else None

    def _pending_room(self, queue: Queue) -> int:
        progress = self.progress(queue)
        return self._context.max_pending - (len(progress.pending) if progress is not None else 0)

    def _lend(self, queue: Queue, poll: Poll, messages: Sequence[StoredMessage], attempt: int, high: int) -> Delivery:
        return self.grant(queue, self._lease(poll, messages, attempt), messages, high)

    def _lease(self, poll: Poll, messages: Sequence[StoredMessage], attempt: int) -> Lease:
        context = self._context
        return Lease(
            context.numbers.incarnation,
            context.numbers.next(),
            context.clock.now_ms() + poll.invisible_ms,
            attempt,
            poll.auto_renew,
            poll.client_id,
            offsets_of(messages),
        )

    def _granted(self, queue: Queue, lease: Lease, messages: Sequence[StoredMessage]) -> Delivery:
        """The lease is recorded. What the state made of it is what counts from now on."""
        progress = self._context.state.progress[self._group.id, self._topic.id, queue.id]
        recorded = next((progress.pending[offset] for offset in lease.offsets if offset in progress.pending), lease)
        if lease.offsets:
            self._due.watch(queue.id, recorded)
            self._due.forget(queue.id, len(progress.pending), lambda lease: bool(held(progress, lease)))
        return Delivery(queue, messages, recorded)

    def _bury(self, progress: Progress, messages: list[StoredMessage]) -> None:
        for message in messages:
            try:
                self._context.dead_letters.move(self._group, self._topic, progress, message)
            except Refused:
                return  # the disk is full or slow: they come up again


def held(progress: Progress, lease: Lease) -> list[int]:
    """What of its messages the lease still holds."""
    return [offset for offset in lease.offsets if progress.pending.get(offset) is lease]
