"""Delivery to one group from one topic of this broker: parked polls here, messages to lend there."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import takewhile

import structlog

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.operations.attempts import Attempts
from kourou_broker.operations.due_leases import DueLeases
from kourou_broker.operations.lending import Context, Lending
from kourou_broker.operations.lending_in_order import LendingInOrder
from kourou_broker.operations.poll import Batch, Delivery, Poll
from kourou_broker.operations.receipt import LeaseName
from kourou_broker.operations.section_reader import StoredMessage, size_of
from kourou_broker.state.definitions import Group, Queue, Topic
from kourou_broker.state.records import Lease
from kourou_service.logs import apart_from_calls

_logger = structlog.stdlib.get_logger(__name__)

_REPEAT_WAIT_MS = 5000


class Subscription:
    def __init__(self, context: Context, group: Group, topic: Topic) -> None:
        self.group = group
        self.topic = topic
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._polls: dict[Poll, None] = {}
        """In the order of their coming."""
        self._by_attempt: dict[str, Poll] = {}
        self.due = self._new_due()
        self._attempts = Attempts(self._holds)
        self._traffic = context.traffic.of_group(group.id, topic.id)
        self._next_queue = 0
        self._pump: asyncio.Task[None] | None = None
        self._serving: Poll | None = None
        self._woken = False
        self._news = False
        """There may be something for those, too, who have found nothing before."""
        self._timer: asyncio.TimerHandle | None = None
        self._begun = False
        self._in_order = keeps_order(group, topic)
        self._lending = self._new_lending()
        for progress in context.state.progress_of(group, topic):
            for lease in dict.fromkeys(progress.pending.values()):
                if not (self._in_order and lease.holds_back):
                    self.due.watch(progress.queue, lease)

    def park(self, poll: Poll) -> None:
        """The poll's answer is set as soon as there is a message for it; who gave it up calls `leave`."""
        if poll.attempt_id:
            other = self._by_attempt.get(poll.attempt_id)
            if other is not None:
                other.end()  # the client asks again: nobody reads the first answer
            self._by_attempt[poll.attempt_id] = poll
        self._polls[poll] = None
        self._start()

    def leave(self, poll: Poll) -> None:
        self._polls.pop(poll, None)
        if self._by_attempt.get(poll.attempt_id) is poll:
            del self._by_attempt[poll.attempt_id]

    def expire(self, poll: Poll) -> None:
        """Its time is over. If messages are being read for it at this moment it gets these."""
        poll.expired = True
        if self._serving is not poll:
            self.leave(poll)
            poll.end()

    def wake(self) -> None:
        """Something may be deliverable now."""
        self._news = True
        self._start()

    def _start(self) -> None:
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

    def give_back_all(self, client_id: str, held: Collection[LeaseName]) -> None:
        """All that the client keeps while it lives, but the leases that it holds, is due now."""
        now_ms = self._context.clock.now_ms()
        for progress in self._context.state.progress_of(self.group, self.topic):
            for lease in dict.fromkeys(progress.pending.values()):
                name = LeaseName(progress.queue, lease.incarnation, lease.number)
                if lease.auto_renew and lease.client_id == client_id and name not in held:
                    self.due.give_back(progress.queue, lease, now_ms)
        self.wake()

    def grant(self, queue: Queue, lease: Lease, messages: Sequence[StoredMessage], high: int) -> None:
        self._lending.grant(queue, lease, messages, high)
        self.wake()

    def settled(self, queue: int, offsets: Sequence[int]) -> None:
        """Messages of the queue were settled, and the disk knows."""
        self._lending.settled(queue, offsets)

    def offsets_set(self) -> None:
        """Leases of some queues are void: what is there now can be had at once."""
        self._lending.offsets_set()
        self.wake()

    def resent(self, queue: int, offset: int) -> None:
        """A message that was settled is pending again, and the disk knows."""
        progress = self._context.state.progress.get((self.group.id, self.topic.id, queue))
        lease = progress.pending.get(offset) if progress is not None else None
        if lease is None or not lease.holds_back:
            return  # it was fresh, or settled meanwhile
        if self._in_order:
            self._lending.offsets_set()  # who waits for whom is looked at anew
        else:
            self.due.watch(queue, lease)
        self.wake()

    def holds_back(self, queue: int, offset: int, lease: Lease) -> bool:
        """Whether a pending message waits for an older one of its message group."""
        return self._lending.holds_back(queue, offset, lease)

    def oldest_of_message_group(self, queue: int, offset: int) -> int | None:
        """What a message that is held back waits for, if that is known."""
        return self._lending.oldest_of_message_group(queue, offset)

    def end_polls(self, lost: Callable[[Poll], bool]) -> None:
        """Ends the polls of those who do not own their queue any more."""
        for poll in [poll for poll in self._polls if lost(poll)]:
            self.leave(poll)
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
                for poll in self._to_serve():
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
                    elif self._has_nothing_else(poll):
                        break
        except Exception:
            _logger.exception("delivery to a group failed", group=str(self.group.name), topic=str(self.topic.name))
            self.end_polls(lambda poll: poll.expired)
            self._news = True  # those that are left were not looked after
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
            self._news = True  # nobody tells when there is room again: who comes next asks for all
            return []
        if not self._begun:
            await self._context.begin(self.group, self.topic)
            self._begun = True
        if self._in_order is not keeps_order(self.group, self.topic):
            self._switch_lending()
        if poll.attempt_id and (again := await self._again(poll)):
            return again
        batch = Batch(poll.batch_size, poll.room_bytes)
        for queue in self._candidates(poll):
            try:
                await self._lending.take(queue, poll, batch)
            except Exception:  # it must hold up neither the other queues nor what was lent already
                name = f"{self.topic.name}/{queue.id}"
                _logger.exception("a queue cannot be read", queue=name, group=str(self.group.name))
                self._news = True  # as above
            if batch.full or poll.answer.done():
                break
        self._attempts.remember(poll.attempt_id, batch.deliveries)
        return batch.deliveries

    def _to_serve(self) -> list[Poll]:
        """The polls for which there may be something; who comes does not make the others look again."""
        news, self._news = self._news, False
        if news:
            return list(self._polls)
        return list(takewhile(lambda poll: not poll.waited, reversed(self._polls)))[::-1]

    def _has_nothing_else(self, poll: Poll) -> bool:
        """Where this poll has found nothing, nobody does."""
        return poll.queues is None and poll.filter.all

    def _candidates(self, poll: Poll) -> Iterable[Queue]:
        queues: Sequence[Queue] = self.topic.queues
        if poll.queues is not None:
            queues = [queue for queue in queues if queue.id in poll.queues]
        if self.topic.type == definition_pb2.PRIORITY:
            return queues[::-1]
        start = self._next_queue = (self._next_queue + 1) % max(len(queues), 1)
        return (*queues[start:], *queues[:start])

    def _count(self, deliveries: list[Delivery]) -> None:
        traffic = self._traffic
        for _queue, messages, lease in deliveries:
            self._context.traffic.delivered += len(messages)
            traffic.delivered += len(messages)
            traffic.size_bytes += size_of(messages)
            if lease.attempt > 1:
                traffic.redelivered += len(messages)

    def _holds(self, queue: int, lease: Lease) -> bool:
        progress = self._context.state.progress.get((self.group.id, self.topic.id, queue))
        return progress is not None and any(progress.pending.get(offset) is lease for offset in lease.offsets)

    async def _again(self, poll: Poll) -> list[Delivery]:
        """What an earlier call with this attempt id was given and did not get, once more and at the same attempt."""
        again: list[Delivery] = []
        for queue_id, lease in self._attempts.leases(poll.attempt_id):
            delivery = await self._lending.lend_again(self.topic.queue(queue_id), poll, lease)
            if delivery is not None:
                again.append(delivery)
        self._attempts.remember(poll.attempt_id, again)
        return again

    def _new_due(self) -> DueLeases:
        return DueLeases(self._context.may_live, self._context.numbers.incarnation)

    def _new_lending(self) -> Lending:
        kind = LendingInOrder if self._in_order else Lending
        return kind(self._context, self.group, self.topic, self.due, self.wake)

    def _switch_lending(self) -> None:
        """The group keeps the order of messages from now on, or no longer."""
        self._in_order = not self._in_order
        self._lending = self._new_lending()
        if not self._in_order:
            for progress in self._context.state.progress_of(self.group, self.topic):
                for lease in dict.fromkeys(progress.pending.values()):
                    if lease.holds_back:
                        self.due.watch(progress.queue, lease)  # it is due: nothing waits any more


def keeps_order(group: Group, topic: Topic) -> bool:
    return topic.type == definition_pb2.FIFO and group.definition.order == record_pb2.ORDER_FIFO
