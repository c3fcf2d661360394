"""Delivery to one group from one topic of this broker: parked polls here, due and fresh messages there."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import structlog

from kourou_broker.operations.dead_letter import DeadLetters
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.section_reader import MessageSection, SectionReader, StoredMessage
from kourou_broker.operations.tag_filter import TagFilter
from kourou_broker.state import State, records
from kourou_broker.state.definitions import Group, Queue, Topic
from kourou_broker.state.progress import Progress
from kourou_broker.state.records import Lease
from kourou_service.clock import Clock
from kourou_service.refusal import Refused

_logger = structlog.stdlib.get_logger(__name__)

MAX_BATCH_BYTES = 8 * 1024 * 1024
_SECTIONS_A_SLICE = 16
"""So many sections are filtered before the loop gets its turn."""
_DEAD_LETTER_RETRY_MS = 1000


class Delivery(NamedTuple):
    queue: Queue
    message: StoredMessage
    lease: Lease


@dataclass(slots=True, eq=False)
class Poll:
    """A client that waits for messages."""

    client_id: str
    filter: TagFilter
    batch_size: int
    invisible_ms: int
    auto_renew: bool
    attempt_id: str
    queue: int | None
    """The only queue it asks; None: any of the topic."""
    answer: asyncio.Future[list[Delivery]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def end(self, deliveries: Sequence[Delivery] = ()) -> None:
        if not self.answer.done():
            self.answer.set_result(list(deliveries))


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
        self._due: dict[int, list[tuple[int, int, Lease]]] = {}  # heaps of (deadline ms, number, lease) by queue
        self._open: dict[int, MessageSection] = {}  # the section that each queue is being read from
        self._attempts: dict[str, list[tuple[int, Lease]]] = {}
        self._next_queue = 0
        self._pump: asyncio.Task[None] | None = None
        self._woken = False
        self._timer: asyncio.TimerHandle | None = None
        for progress in context.state.progress_of(group, topic):
            for lease, _offsets in progress.leases():
                self.watch(progress.queue, lease)

    @property
    def waiting(self) -> int:
        return len(self._polls)

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

    def wake(self) -> None:
        """Something may be deliverable now."""
        self._woken = True
        if self._polls and self._pump is None:
            self._pump = self._loop.create_task(self._serve())

    def watch(self, queue: int, lease: Lease) -> None:
        """The messages that the lease holds at its deadline are due again."""
        heappush(self._due.setdefault(queue, []), (lease.deadline_ms, lease.number, lease))

    def return_leases(self, client_id: str) -> None:
        """The client is gone: what it was to keep while it lived is due now."""
        now = self._context.clock.now_ms()
        for heap in self._due.values():
            for place, (_deadline, number, lease) in enumerate(heap):
                if lease.auto_renew and lease.client_id == client_id:
                    heap[place] = (now, number, lease)
            heapify(heap)
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
                    elif deliveries := await self._take(poll):
                        self.leave(poll)
                        poll.end(deliveries)
                    elif poll.queue is None and poll.filter.all:
                        break  # where it finds nothing, nobody does
        except Exception:
            _logger.exception("delivery to a group failed", group=str(self.group.name), topic=str(self.topic.name))
        finally:
            self._pump = None
            self._arm()

    def _arm(self) -> None:
        """While somebody waits, a timer wakes for the next message that is due again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadlines = [heap[0][0] for heap in self._due.values() if heap]
        if self._polls and deadlines:
            delay_s = max(0.001, (min(deadlines) - self._context.clock.now_ms()) / 1000)
            self._timer = self._loop.call_later(delay_s, self.wake)

    async def _take(self, poll: Poll) -> list[Delivery]:
        if poll.attempt_id and (again := await self._again(poll.attempt_id)):
            return again
        taken: list[Delivery] = []
        size = 0
        for queue in self._candidates(poll):
            for take in (self._take_due, self._take_fresh):
                room = poll.batch_size - len(taken)
                if room <= 0 or size >= MAX_BATCH_BYTES or poll.answer.done():
                    break
                deliveries = await take(queue, poll, room, MAX_BATCH_BYTES - size)
                size += sum(len(delivery.message.head) for delivery in deliveries)
                taken += deliveries
        if taken and poll.attempt_id:
            self._remember(poll.attempt_id, taken)
        return taken

    def _candidates(self, poll: Poll) -> Sequence[Queue]:
        queues = self.topic.queues
        if poll.queue is not None:
            return queues[poll.queue : poll.queue + 1]
        start = self._next_queue = (self._next_queue + 1) % len(queues)
        return (*queues[start:], *queues[:start])

    async def _take_due(self, queue: Queue, poll: Poll, room: int, _room_bytes: int) -> list[Delivery]:
        """Messages whose lease has run out, once more; past the group's attempts they become dead letters."""
        context = self._context
        progress = context.state.progress.get((self.group.id, self.topic.id, queue.id))
        heap = self._due.get(queue.id)
        taken: list[Delivery] = []
        while progress is not None and heap and room > len(taken) and heap[0][0] <= context.clock.now_ms():
            _deadline, number, lease = heappop(heap)
            held = [offset for offset in lease.offsets if progress.pending.get(offset) is lease]
            if held and lease.auto_renew and context.may_live(lease.client_id):
                heappush(heap, (context.clock.now_ms() + poll.invisible_ms, number, lease))
                continue
            now_due, later = held[: room - len(taken)], held[room - len(taken) :]
            if later:
                heappush(heap, (lease.deadline_ms, number, lease))
            found = await self._read(queue, now_due)
            gone = set(now_due).difference(message.offset for message in found)
            if gone:
                context.journal.settle(progress, sorted(gone), records.Fate.EXPIRED)
            found = [message for message in found if progress.pending.get(message.offset) is lease]
            if poll.answer.done():
                heappush(heap, (lease.deadline_ms, number, lease))
                return taken
            if not found:
                continue
            if lease.attempt >= self.group.max_attempts:
                self._bury(progress, queue, found, lease)
            else:
                taken += self._lend(queue, poll, found, lease.attempt + 1, progress.high)
        return taken

    async def _take_fresh(self, queue: Queue, poll: Poll, room: int, room_bytes: int) -> list[Delivery]:
        context = self._context
        key = (self.group.id, self.topic.id, queue.id)
        progress = context.state.progress.get(key)
        start = progress.high if progress is not None else queue.first_offset
        if start >= queue.next_offset or (progress is not None and len(progress.pending) >= context.max_pending):
            return []
        taken: list[StoredMessage] = []
        offset, sections = start, 0
        while len(taken) < room and room_bytes > 0:
            section = await self._section(queue, offset)
            if section is None:
                break
            offset = max(offset, section.base)
            while offset < section.base + section.count and len(taken) < room and room_bytes > 0:
                index = offset - section.base
                if poll.filter.may_match(section.tag_hash(index)):
                    message = section.message(index)
                    if poll.filter.matches(message):
                        taken.append(message)
                        room_bytes -= len(message.head)
                offset += 1
            sections += 1
            if sections % _SECTIONS_A_SLICE == 0:
                await asyncio.sleep(0)
        progress = context.state.progress.get(key)
        if offset == start or (progress.high if progress is not None else queue.first_offset) != start:
            return []  # nothing there, or the offset was set meanwhile: the next round sees where it is now
        if poll.answer.done():
            return []
        return self._lend(queue, poll, taken, 1, offset)

    async def _section(self, queue: Queue, offset: int) -> MessageSection | None:
        section = self._open.get(queue.id)
        if section is not None and section.base <= offset < section.base + section.count:
            return section
        reader = self._context.reader
        entry = reader.find(queue, offset) if offset < queue.next_offset else None
        if entry is None:
            self._open.pop(queue.id, None)
            return None
        section = self._open[queue.id] = reader.cached(entry) or await reader.read(entry)
        return section

    async def _read(self, queue: Queue, offsets: Iterable[int]) -> list[StoredMessage]:
        found = [await self._context.reader.message(queue, offset) for offset in offsets]
        return [message for message in found if message is not None]

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
            self.watch(queue.id, held)
        return [Delivery(queue, message, held) for message in messages]

    def _bury(self, progress: Progress, queue: Queue, messages: list[StoredMessage], lease: Lease) -> None:
        for message in messages:
            try:
                self._context.dead_letters.move(self.group, self.topic, progress, message)
            except Refused:  # the disk is full or slow: later
                later = self._context.clock.now_ms() + _DEAD_LETTER_RETRY_MS
                heappush(self._due.setdefault(queue.id, []), (later, lease.number, lease))
                return

    def _remember(self, attempt_id: str, deliveries: list[Delivery]) -> None:
        while len(self._attempts) >= 4096:
            del self._attempts[next(iter(self._attempts))]
        leases = {id(delivery.lease): (delivery.queue.id, delivery.lease) for delivery in deliveries}
        self._attempts[attempt_id] = list(leases.values())

    async def _again(self, attempt_id: str) -> list[Delivery]:
        """What an earlier call with this attempt id was given, as far as it is still held."""
        again: list[Delivery] = []
        for queue_id, lease in self._attempts.get(attempt_id, ()):
            queue = self.topic.queues[queue_id]
            progress = self._context.state.progress.get((self.group.id, self.topic.id, queue_id))
            if progress is not None:
                held = [offset for offset in lease.offsets if progress.pending.get(offset) is lease]
                again += [Delivery(queue, message, lease) for message in await self._read(queue, held)]
        return again
