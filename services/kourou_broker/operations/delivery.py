"""Receiving: who may have which messages of this broker, and what becomes of them."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations import receipt
from kourou_broker.operations.assignment import Assignments
from kourou_broker.operations.clients import Client
from kourou_broker.operations.due_leases import before_deadline
from kourou_broker.operations.lending import Context
from kourou_broker.operations.lite_delivery import LiteSubscription
from kourou_broker.operations.poll import Delivery, Poll
from kourou_broker.operations.subscription import Subscription
from kourou_broker.state import Fate
from kourou_broker.state.definitions import Group, Name, Queue, Topic
from kourou_broker.state.progress import Progress
from kourou_broker.state.records import Lease
from kourou_service.refusal import Refused

_NOT_OWNER_WAIT_S = 1.0
"""Who asks a queue that is not his gets an empty answer after this time: at once, it would ask again at once."""
_LONG_WAIT_S = 1.0
_END_TOGETHER_S = 0.05
"""Long waits that are over within so long end in the same turn: to wake for each costs more than to end it."""


@dataclass(frozen=True, slots=True)
class InvisibleTimes:
    """Bounds of the time for which a message is lent, milliseconds."""

    default_ms: int = 60_000
    min_ms: int = 1_000
    max_ms: int = 12 * 3_600_000


class Deliveries:
    def __init__(self, context: Context, assignments: Assignments, times: InvisibleTimes) -> None:
        self._context = context
        self._assignments = assignments
        self._times = times
        self._by_topic: dict[int, dict[int, Subscription]] = {}
        self._by_group: dict[int, dict[int, Subscription]] = {}
        self._owners: dict[int, dict[int, dict[int, str] | None]] = {}
        """By group and topic, what was asked since it changed last."""
        self._moved: dict[int, None] = {}
        """The groups whose queues have moved in this turn."""
        self.parked_polls = 0

    async def receive(
        self, group: Group, topic: Topic, client: Client, poll: Poll, wait_s: float | None
    ) -> list[Delivery]:
        """Up to batch_size messages; empty when none came within wait_s (None: as long as it takes), or when the poll
        follows its client's queues and these are others now."""
        subscription = self._subscription(group, topic)
        owners = self._owners_of(group, topic)
        if owners is None or not client.is_push_consumer:
            poll.queues = None
        elif poll.follows:
            poll.queues = _owned(owners, client.id)
        elif not _owns(owners, poll):
            poll.waited = True
            await asyncio.sleep(_NOT_OWNER_WAIT_S if wait_s is None else min(wait_s, _NOT_OWNER_WAIT_S))
            return []
        subscription.park(poll)
        self.parked_polls += 1
        timer = None if wait_s is None else _call_after(wait_s, subscription.expire, poll)
        try:
            return await poll.answer
        except asyncio.CancelledError:
            if poll.answer.done() and not poll.answer.cancelled():
                subscription.give_back(poll.answer.result(), poll.attempt_id)
            raise
        finally:
            self.parked_polls -= 1
            if timer is not None:
                timer.cancel()
            subscription.leave(poll)
            poll.answer.cancel()

    def give_back(self, group: Group, topic: Topic, poll: Poll) -> None:
        """The poll's answer did not reach its client."""
        self._subscription(group, topic).give_back(poll.answer.result(), poll.attempt_id)

    def invisible_ms(self, asked_ms: int | None) -> int:
        """How long a received message is lent. Raises Refused for a time over the maximum or below zero."""
        if asked_ms is None:
            return self._times.default_ms
        if not 0 < asked_ms <= self._times.max_ms:
            raise Refused(
                definition_pb2.ILLEGAL_INVISIBLE_TIME,
                f"the invisible time must be over 0 and at most {self._times.max_ms} ms, not {asked_ms} ms",
            )
        return max(asked_ms, self._times.min_ms)

    def held(self, group: Group, topic: Topic, handle: str) -> tuple[Progress, int, Lease]:
        """What a receipt handle stands for. Raises Refused when it is foreign or expired, or nothing can be changed."""
        self.require_room()
        return receipt.resolve(self._context.state, handle, group.id, topic.id)

    def require_room(self) -> None:
        """Raises Refused when nothing can be changed."""
        self._context.journal.require_room()

    def acknowledge(self, progress: Progress, offsets: Sequence[int]) -> None:
        """Settles messages; wait for the journal before the answer."""
        full = len(progress.pending) >= self._context.max_pending
        self._context.journal.settle(progress, offsets, Fate.CONSUMED)
        if full:
            self._context.journal.when_durable(lambda: self._wake(progress.topic, progress.group))

    def change_invisible(
        self, group: Group, topic: Topic, handle: str, asked_ms: int | None, *, suspend: bool
    ) -> tuple[str, int]:
        """Lends a held message anew, from now; with suspend its attempt will not count. -> the new handle, ms."""
        progress, offset, lease = self.held(group, topic, handle)
        renewed, invisible_ms = self.lend_anew(group, topic, progress, lease, [offset], asked_ms, suspend=suspend)
        return receipt.encode((group.id, topic.id, progress.queue), offset, renewed), invisible_ms

    def lend_anew(
        self,
        group: Group,
        topic: Topic,
        progress: Progress,
        lease: Lease,
        offsets: Sequence[int],
        asked_ms: int | None,
        *,
        suspend: bool = False,
    ) -> tuple[Lease, int]:
        """The same for messages that a lease holds. -> their new lease, ms."""
        if asked_ms is not None and not 0 <= asked_ms <= self._times.max_ms:
            raise Refused(
                definition_pb2.ILLEGAL_INVISIBLE_TIME,
                f"the invisible time must be 0 to {self._times.max_ms} ms, not {asked_ms} ms",
            )
        invisible_ms = backoff_ms(group, lease.attempt) if asked_ms is None else asked_ms
        context = self._context
        renewed = Lease(
            context.numbers.incarnation,
            context.numbers.next(),
            context.clock.now_ms() + invisible_ms,
            max(lease.attempt - 1, 0) if suspend else lease.attempt,
            False,
            lease.client_id,
            offsets,
        )
        self._subscription(group, topic).grant(topic.queue(progress.queue), renewed, (), progress.high)
        return renewed, invisible_ms

    async def bury(self, group: Group, topic: Topic, handle: str) -> None:
        """Moves a held message to the group's dead-letter topic; it is on the disk then."""
        progress, offset, lease = self.held(group, topic, handle)
        await self.bury_held(group, topic, progress, lease, [offset])
        await self._context.journal.durable()

    async def bury_held(
        self, group: Group, topic: Topic, progress: Progress, lease: Lease, offsets: Sequence[int]
    ) -> None:
        """The same for messages that a lease holds; wait for the journal before the answer."""
        for offset in offsets:
            message = await self._context.reader.message(topic.queue(progress.queue), offset)
            if message is None or progress.pending.get(offset) is not lease:
                raise Refused(definition_pb2.INVALID_RECEIPT_HANDLE, "the receipt handle has expired")
            self._context.dead_letters.move(group, topic, progress, message)
        self._wake(topic.id, group.id)

    def give_back_all(self, group: Group, topic: Topic, client: Client, held: Collection[receipt.LeaseName]) -> None:
        """What the client was lent and does not work on is due: it did not reach it."""
        self._subscription(group, topic).give_back_all(client.id, held)

    def to_lite_group(self, group: Group) -> LiteSubscription:
        """The delivery to a lite group, whose topic must be there."""
        assert group.lite_topic is not None
        subscription = self._subscription(group, self._context.state.topics[group.lite_topic])
        assert isinstance(subscription, LiteSubscription)
        return subscription

    def to_lite_groups(self) -> list[LiteSubscription]:
        return [subscription for subscription in self._all() if isinstance(subscription, LiteSubscription)]

    def on_lite_messages(self, topic: Topic, name: str) -> None:
        """New messages of the lite topic can be delivered."""
        for subscription in self._by_topic.get(topic.id, {}).values():
            if isinstance(subscription, LiteSubscription):
                subscription.has_messages(name)

    def members_changed(self, name: Name) -> None:
        """The group's members or their subscriptions changed: polls of queues that moved end with this turn.

        Many members may come in one turn: what it takes to end polls is done once for all of them.
        """
        group = self._context.state.groups.get(name)
        if group is not None:
            self._owners.pop(group.id, None)
            if not self._moved:
                asyncio.get_running_loop().call_soon(self._end_lost_polls)
            self._moved[group.id] = None

    def route_changed(self, name: Name) -> None:
        """The topic's queues in the cluster changed."""
        topic = self._context.state.topics.get(name)
        if topic is not None:
            for owners in self._owners.values():
                owners.pop(topic.id, None)
            for subscription in self._by_topic.get(topic.id, {}).values():
                self._end_lost(subscription)

    def group_changed(self, name: Name) -> None:
        """The group is new, deleted, or shares from now on, or no longer."""
        self.forget_deleted()
        self.members_changed(name)
        group = self._context.state.groups.get(name)
        if group is not None:
            for subscription in self._by_group.get(group.id, {}).values():
                subscription.wake()  # what was held back is not, if it keeps no order any more

    def topic_changed(self, name: Name) -> None:
        self.forget_deleted()
        self.route_changed(name)

    def client_gone(self, client: Client) -> None:
        group = self._context.state.groups.get(client.group) if client.group is not None else None
        if group is not None:
            for subscription in self._by_group.get(group.id, {}).values():
                subscription.client_gone(client.id)

    def offsets_set(self, group: Group, topic: Topic) -> None:
        """The group's progress in queues of the topic was set, in this turn."""
        subscription = self._by_topic.get(topic.id, {}).get(group.id)
        if subscription is not None:
            subscription.offsets_set()

    def settled(self, progress: Progress, offsets: Sequence[int]) -> None:
        """Messages were settled, and the disk knows."""
        subscription = self._by_topic.get(progress.topic, {}).get(progress.group)
        if subscription is not None:
            subscription.settled(progress.queue, offsets)

    def resent(self, group: Group, topic: Topic, queue: int, offset: int) -> None:
        """A message that the group had settled is pending again, and the disk knows."""
        subscription = self._by_topic.get(topic.id, {}).get(group.id)
        if subscription is not None:
            subscription.resent(queue, offset)

    def forget_deleted(self) -> None:
        """Ends what waits for topics and groups that are no more."""
        state = self._context.state
        for subscription in list(self._all()):
            topic, group = subscription.topic, subscription.group
            if state.topics_by_id.get(topic.id) is not topic or state.groups_by_id.get(group.id) is not group:
                subscription.close()
                del self._by_topic[topic.id][group.id]
                del self._by_group[group.id][topic.id]
        for topic_id in self._by_topic.keys() - state.topics_by_id.keys():
            del self._by_topic[topic_id]
        for by_group in (self._by_group, self._owners):
            for group_id in by_group.keys() - state.groups_by_id.keys():
                del by_group[group_id]
        for owners in self._owners.values():
            for topic_id in owners.keys() - state.topics_by_id.keys():
                del owners[topic_id]

    def close(self) -> None:
        for subscription in self._all():
            subscription.close()

    def owner(self, group: Group, topic: Topic, queue: int) -> str:
        """The member that a queue of this broker belongs to; empty when the group shares or nobody has it."""
        owners = self._owners_of(group, topic)
        return "" if owners is None else owners.get(queue, "")

    def is_lent(self, group: int, topic: int) -> Callable[[Lease, int], bool]:
        """-> what tells whether a lease of the group on the topic holds its messages at a time (ms)."""
        subscription = self._by_topic.get(topic, {}).get(group)
        return before_deadline if subscription is None else subscription.due.is_lent

    def holds_back(self, group: int, topic: int) -> Callable[[int, int, Lease], bool]:
        """-> what tells by queue, offset and lease whether a pending message waits for an older one of its group."""
        subscription = self._by_topic.get(topic, {}).get(group)
        return _not_served_yet if subscription is None else subscription.holds_back

    def oldest_of_message_group(self, group: int, queue: Queue, offset: int) -> int | None:
        """The offset that a held back message waits for; None if that is not known before somebody asks the queue."""
        subscription = self._by_topic.get(queue.topic.id, {}).get(group)
        return None if subscription is None else subscription.oldest_of_message_group(queue.id, offset)

    def _owners_of(self, group: Group, topic: Topic) -> dict[int, str] | None:
        known = self._owners.setdefault(group.id, {})
        if topic.id not in known:
            known[topic.id] = self._assignments.owners(group, topic)
        return known[topic.id]

    def _end_lost_polls(self) -> None:
        moved, self._moved = self._moved, {}
        for group_id in moved:
            for subscription in self._by_group.get(group_id, {}).values():
                self._end_lost(subscription)

    def _end_lost(self, subscription: Subscription) -> None:
        owners = self._owners_of(subscription.group, subscription.topic)
        subscription.end_polls(lambda poll: _has_lost(owners, poll))

    def _all(self) -> Sequence[Subscription]:
        return [subscription for groups in self._by_topic.values() for subscription in groups.values()]

    def _subscription(self, group: Group, topic: Topic) -> Subscription:
        groups = self._by_topic.setdefault(topic.id, {})
        subscription = groups.get(group.id)
        if subscription is None:
            kind = Subscription if group.lite_topic is None else LiteSubscription
            subscription = groups[group.id] = kind(self._context, group, topic)
            self._by_group.setdefault(group.id, {})[topic.id] = subscription
        return subscription

    def on_messages(self, topic_id: int) -> None:
        """New messages of the topic can be delivered."""
        for subscription in self._by_topic.get(topic_id, {}).values():
            subscription.wake()

    def _wake(self, topic_id: int, group_id: int) -> None:
        subscription = self._by_topic.get(topic_id, {}).get(group_id)
        if subscription is not None:
            subscription.wake()


def _call_after(wait_s: float, callback: Callable[[Poll], None], poll: Poll) -> asyncio.TimerHandle:
    """After that time, or a little before."""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + wait_s
    return loop.call_at(ends_s - (ends_s % _END_TOGETHER_S if wait_s > _LONG_WAIT_S else 0), callback, poll)


def _owned(owners: dict[int, str], client_id: str) -> frozenset[int]:
    return frozenset(queue for queue, owner in owners.items() if owner == client_id)


def _owns(owners: dict[int, str], poll: Poll) -> bool:
    return poll.queues is not None and all(owners.get(queue) == poll.client_id for queue in poll.queues)


def _has_lost(owners: dict[int, str] | None, poll: Poll) -> bool:
    """Whether the poll asks other queues than it may."""
    if owners is None:
        return poll.follows and poll.queues is not None
    return poll.queues != _owned(owners, poll.client_id) if poll.follows else not _owns(owners, poll)


def _not_served_yet(_queue: int, _offset: int, lease: Lease) -> bool:
    return lease.holds_back


def backoff_ms(group: Group, attempt: int) -> int:
    """The group's wait before the attempt after this one."""
    retry = group.definition.retry
    step = max(attempt, 1) - 1  # a suspended attempt is not counted, and may be the first
    if retry.HasField("exponential_backoff"):
        policy = retry.exponential_backoff
        longest_ms = policy.max.ToMilliseconds()
        try:
            return int(min(policy.initial.ToMilliseconds() * policy.multiplier**step, longest_ms))
        except OverflowError:
            return longest_ms
    steps = retry.customized_backoff.next
    return steps[min(step, len(steps) - 1)].ToMilliseconds() if steps else 0
