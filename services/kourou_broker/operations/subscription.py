"""Delivery to one group from one topic of this broker: parked polls here, due and fresh messages there."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import structlog

from kourou_broker.operations.attempts import Attempts
from kourou_broker.operations.dead_letter import DeadLetters
from kourou_broker.operations.due_leases import DueLeases
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.matching import MatchingReader
from kourou_broker.operations.poll import Batch, Delivery, Poll
from kourou_broker.operations.section_reader import SectionReader, StoredMessage
from kourou_broker.operations.traffic import Traffic
from kourou_broker.state import Fate, State, records
from kourou_broker.state.definitions import Group, Queue, Topic
from kourou_broker.state.progress import Progress
from kourou_broker.state.records import Lease
from kourou_service.clock import Clock
from kourou_service.logs import apart_from_calls
from kourou_service.refusal import Refused

_logger = structlog.stdlib.get_logger(__name__)

_LOOK_AGAIN_MS = 1000
"""A lease that came up and could not be dealt with, as when the disk failed to be read, comes up again after this."""
_REPEAT_WAIT_MS = 5000


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
    max_pending: int
    """Messages of one queue lent or due at a time; at the bound nothing fresh is lent."""


class Subscription:
    def __init__(self, context: Context, group: Group, topic: Topic) -> None:
        self.group = group
        self.topic = topic
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._polls: list[Poll] = []
        self.due = DueLeases(context.may_live, context.numbers.incarnation)
        self._fresh = MatchingReader(context.reader)
        self._attempts = Attempts(self._holds)
        self._traffic = context.traffic.of_group(group.id, topic.id)
        self._next_queue = 0
        self._pump: asyncio.Task[None] | None = None
        self._serving: Poll | None = None
        self._woken = False
        self._timer: asyncio.TimerHandle | None = None
        for progress in context.state.progress_of(group, topic):
            for lease, _offsets in progress.leases():
                self.due.watch(progress.queue, lease)

    def park(self, poll: Poll) -> None:
        """The poll's answer is set as soon as there is a message for it; who gave it up calls `leave`."""
        for other in self._polls:
            if poll.attempt_id and other.attempt_id == poll.attempt_id:
                other.end()  # the client asks again: nobody reads the first answer
        self._polls.append(poll)
        self.wake()

    def leave(self, poll: Poll) -> None:
        if poll in self._polls:
            self._polls.remove(poll)

    def expire(self, poll: Poll) -> None:
        """Its time is over. If messages are being read for it at this moment it gets these."""
        poll.expired = True
        if self._serving is not poll:
            self.leave(poll)
            poll.end()

    def wake(self) -> None:
        """Something may be deliverable now."""
        self._woken = True
        if self._polls and self._pump is None:
            self._pump = self._loop.create_task(self._serve(), context=apart_from_calls())

    def client_gone(self, client_id: str) -> None:
        """What the client was to keep while it lived is due now."""
        self.due.client_gone(client_id, self._context.clock.now_ms())
        self.wake()

    def give_back(self, deliveries: Iterable[Delivery], attempt_id: str) -> None:
        """The deliveries did not reach their client. If it may ask for the same again, they wait for that a while."""
        wait_ms = _REPEAT_WAIT_MS if attempt_id else 0
        at_ms = self._context.clock.now_ms() + wait_ms
        for queue, lease in {(delivery.queue.id, delivery.lease) for delivery in deliveries}:
            self.due.give_back(queue, lease, at_ms)
        self.wake()

    def end_polls(self, lost: Callable[[Poll], bool]) -> None:
        """Ends the polls of those who do not own their queue any more."""
        for poll in [poll for poll in self._polls if lost(poll)]:
            self._polls.remove(poll)
            poll.end()

    def close(self) -> None:
        self.end_polls(lambda _poll: True)
        if self._timer is not None:
            self._timer.cancel()
        if self._pump is not None:
            self._pump.cancel()

    async def _serve(self) -> None:
        """Serves the polls in the order of their coming, until a whole round finds nothing more."""
        try:
            while self._woken:
                self._woken = False
                for poll in list(self._polls):
                    if poll.answer.done():
                        self.leave(poll)
                        continue
                    self._serving = poll
                    deliveries = await self._take(poll)
                    self._serving = None
                    if deliveries or poll.in_haste:
                        self.leave(poll)
                        if poll.answer.done():  # the client went while its messages were read
                            self.give_back(deliveries, poll.attempt_id)
                        else:
                            self._count(deliveries)
                        poll.end(deliveries)
                    elif poll.queue is None and poll.filter.all:
                        break  # where it finds nothing, nobody does
        except Exception:
            _logger.exception("delivery to a group failed", group=str(self.group.name), topic=str(self.topic.name))
            self.end_polls(lambda poll: poll.expired)
        finally:
            self._pump = self._serving = None
            self._note_waiting()
            self._arm()

    def _note_waiting(self) -> None:
        """Those that are left found nothing; all that came before one of them that is noted are noted, too."""
        for poll in reversed(self._polls):
            if poll.waited:
                break
            poll.waited = True

    def _arm(self) -> None:
        """While somebody waits, a timer wakes for the next message that is due again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        earliest_ms = self.due.earliest_ms
        if self._polls and earliest_ms is not None:
            delay_s = max(0.001, (earliest_ms - self._context.clock.now_ms()) / 1000)
            self._timer = self._loop.call_later(delay_s, self.wake)

    async def _take(self, poll: Poll) -> list[Delivery]:
        if not self._context.journal.has_room:
            return []
        if poll.attempt_id and (again := await self._again(poll)):
            return again
        batch = Batch(poll.batch_size)
        for queue in self._candidates(poll):
            if batch.full or poll.answer.done():
                break
            try:
                await self._take_due(queue, poll, batch)
                if not batch.full and not poll.answer.done():
                    await self._take_fresh(queue, poll, batch)
            except Exception:  # it must hold up neither the other queues nor what was lent already
                name = f"{self.topic.name}/{queue.id}"
                _logger.exception("a queue cannot be read", queue=name, group=str(self.group.name))
        self._attempts.remember(poll.attempt_id, batch.deliveries)
        return batch.deliveries

    def _candidates(self, poll: Poll) -> Sequence[Queue]:
        queues = self.topic.queues
        if poll.queue is not None:
            return queues[poll.queue : poll.queue + 1]
        start = self._next_queue = (self._next_queue + 1) % len(queues)
        return (*queues[start:], *queues[:start])

    async def _take_due(self, queue: Queue, poll: Poll, batch: Batch) -> None:
        """Messages whose lease has run out, once more; past the group's attempts they become dead letters."""
        context, due = self._context, self.due
        progress = context.state.progress.get((self.group.id, self.topic.id, queue.id))
        while progress is not None and not batch.full and not poll.answer.done():
            now_ms = context.clock.now_ms()
            lease = due.take(queue.id, now_ms)
            if lease is None:
                break
            held = _held(progress, lease)
            if not held:
                due.ended(lease)
            elif due.renews(lease, now_ms):
                due.watch(queue.id, lease, now_ms + poll.invisible_ms)
            else:
                due.watch(queue.id, lease, now_ms + _LOOK_AGAIN_MS)  # for what is not settled or lent below
                found = await self._read_held(progress, queue, lease, held[: batch.room])
                if found and lease.attempt >= self.group.max_attempts:
                    self._bury(progress, found)
                elif found and not poll.answer.done():
                    batch.add(self._lend(queue, poll, found, lease.attempt + 1, progress.high))

    async def _read_held(
        self, progress: Progress, queue: Queue, lease: Lease, offsets: Sequence[int]
    ) -> list[StoredMessage]:
        """The messages that the lease still holds when they are read; what is not there any more is settled."""
        found = [await self._context.reader.message(queue, offset) for offset in offsets]
        gone = [offset for offset, message in zip(offsets, found, strict=True) if message is None]
        if gone:
            self._context.journal.settle(progress, gone, Fate.EXPIRED)
        return [message for message in found if message and progress.pending.get(message.offset) is lease]

    async def _take_fresh(self, queue: Queue, poll: Poll, batch: Batch) -> None:
        context = self._context
        key = (self.group.id, self.topic.id, queue.id)
        progress = context.state.progress.get(key)
        start = progress.high if progress is not None else queue.first_offset
        if start >= queue.next_offset or (progress is not None and len(progress.pending) >= context.max_pending):
            return
        taken, offset = await self._fresh.read(
            queue, start, poll.filter, batch.room, batch.room_bytes, lambda: poll.in_haste
        )
        progress = context.state.progress.get(key)
        if poll.answer.done() and taken:
            taken, offset = [], taken[0].offset  # what the filter left out need not be read again
        if (progress.high if progress is not None else queue.first_offset) != start:
            self._woken = True  # the offset was set, or messages expired: the next round sees where it is now
        elif offset > start:
            batch.add(self._lend(queue, poll, taken, 1, offset))

    def _lend(self, queue: Queue, poll: Poll, messages: list[StoredMessage], attempt: int, high: int) -> list[Delivery]:
        context = self._context
        lease = Lease(
            context.numbers.incarnation,
            context.numbers.next(),
            context.clock.now_ms() + poll.invisible_ms,
            attempt,
            poll.auto_renew,
            poll.client_id,
            [message.offset for message in messages],
        )
        return self.grant(queue, lease, messages, high)

    def grant(self, queue: Queue, lease: Lease, messages: Iterable[StoredMessage], high: int) -> list[Delivery]:
        """Records the lease; not waited for, since a lease lost in a crash is only an attempt not counted."""
        self._context.journal.emit(records.lease(self.group.id, self.topic.id, queue.id, high, lease))
        progress = self._context.state.progress[self.group.id, self.topic.id, queue.id]
        held = next((progress.pending[offset] for offset in lease.offsets if offset in progress.pending), lease)
        if lease.offsets:
            self.due.watch(queue.id, held)
            self.due.forget(queue.id, len(progress.pending), lambda lease: bool(_held(progress, lease)))
        return [Delivery(queue, message, held) for message in messages]

    def _count(self, deliveries: list[Delivery]) -> None:
        self._context.traffic.delivered += len(deliveries)
        traffic = self._traffic
        traffic.delivered += len(deliveries)
        for _queue, message, lease in deliveries:
            traffic.size_bytes += len(message.head) + len(message.tail)
            if lease.attempt > 1:
                traffic.redelivered += 1

    def _bury(self, progress: Progress, messages: list[StoredMessage]) -> None:
        for message in messages:
            try:
                self._context.dead_letters.move(self.group, self.topic, progress, message)
            except Refused:
                return  # the disk is full or slow: they come up again

    def _holds(self, queue: int, lease: Lease) -> bool:
        progress = self._context.state.progress.get((self.group.id, self.topic.id, queue))
        return progress is not None and any(progress.pending.get(offset) is lease for offset in lease.offsets)

    async def _again(self, poll: Poll) -> list[Delivery]:
        """What an earlier call with this attempt id was given and did not get, once more and at the same attempt."""
        again: list[Delivery] = []
        for queue_id, lease in self._attempts.leases(poll.attempt_id):
            queue = self.topic.queues[queue_id]
            progress = self._context.state.progress.get((self.group.id, self.topic.id, queue_id))
            if progress is None:
                continue
            found = await self._read_held(progress, queue, lease, _held(progress, lease))
            if found:
                again += self._lend(queue, poll, found, lease.attempt, progress.high)
        self._attempts.remember(poll.attempt_id, again)
        return again


def _held(progress: Progress, lease: Lease) -> list[int]:
    """What of its messages the lease still holds."""
    return [offset for offset in lease.offsets if progress.pending.get(offset) is lease]
