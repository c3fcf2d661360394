"""Why a message still waits, in words: from what the broker knows at this moment.

Times are told as spans, so that they mean the same wherever they are read.
"""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.operations.clients import Clients
from kourou_broker.operations.definitions import can_read
from kourou_broker.operations.delivery import Deliveries
from kourou_broker.operations.places import Located
from kourou_broker.state import State
from kourou_broker.state.definitions import Group, Queue, Topic
from kourou_broker.state.half_messages import TransactionId
from kourou_broker.state.history import Event, What
from kourou_broker.state.records import Lease
from kourou_service.clock import Clock


class Waiting:
    def __init__(
        self, state: State, clients: Clients, deliveries: Deliveries, clock: Clock, *, max_pending: int
    ) -> None:
        self._state = state
        self._clients = clients
        self._deliveries = deliveries
        self._clock = clock
        self._max_pending = max_pending

    def why(self, group: Group, queue: Queue, offset: int, last: Event | None) -> str:
        """Of a message that the group has not settled; last: what happened to it last."""
        progress = self._state.progress.get((group.id, queue.topic.id, queue.id))
        lease = progress.pending.get(offset) if progress is not None else None
        if progress is not None and lease is None and offset < progress.high:
            return "it was settled while this was told: ask again"
        if lease is not None:
            if self._is_lent(group, queue.topic, lease):
                return self._lent(lease, last)
            resent = last is not None and last.what == What.RESENT
            reasons = ["resent, and due at once" if resent else self._pending(group, queue, offset, lease)]
        else:
            reasons = [self._fresh(group, queue, offset, progress.high if progress is not None else None)]
            if progress is not None and len(progress.pending) >= self._max_pending:
                reasons.append(f"the group holds {len(progress.pending)} messages of this queue unsettled: the limit")
        return "; ".join(filter(None, (*reasons, self._nobody(group, queue), self._forbidden(queue.topic))))

    def while_held(self, located: Located) -> str:
        """Of a message that is in no queue yet."""
        now_ms = self._clock.now_ms()
        if located.type == definition_pb2.TRANSACTION:
            assert located.origin is not None
            half = self._state.half_messages.get(located.topic, TransactionId(*located.origin))
            if half is None:
                return "its transaction ended while this was told: ask again"
            asked = f"asked {half.checks} times" if half.checks != 1 else "asked once"
            return (
                f"its transaction is open since {span(now_ms - half.stored_ms)}: the producer was {asked}, "
                f"and is asked in {span(half.next_check_ms - now_ms)}"
            )
        left_ms = located.when_ms - now_ms
        return f"its time comes in {span(left_ms)}" if left_ms > 0 else "its time has come: it enters a queue now"

    def _is_lent(self, group: Group, topic: Topic, lease: Lease) -> bool:
        is_lent = self._deliveries.is_lent(group.id, topic.id)
        return not lease.holds_back and is_lent(lease, self._clock.now_ms())

    def _lent(self, lease: Lease, last: Event | None) -> str:
        left_ms = lease.deadline_ms - self._clock.now_ms()
        if lease.auto_renew:
            return f"lent to {lease.client_id} as long as it lives (attempt {lease.attempt})"
        if last is not None and last.what == What.LEASE_CHANGED:
            return f"due again in {span(left_ms)}, after attempt {lease.attempt} by {lease.client_id}"
        return f"lent to {lease.client_id} for another {span(left_ms)} (attempt {lease.attempt})"

    def _pending(self, group: Group, queue: Queue, offset: int, lease: Lease) -> str:
        if self._deliveries.holds_back(group.id, queue.topic.id)(queue.id, offset, lease):
            first = self._deliveries.oldest_of_message_group(group.id, queue, offset)
            return "behind " + ("an older message" if first is None else f"offset {first}") + " of its message group"
        if lease.holds_back:
            return "its turn has come"
        late_ms = max(self._clock.now_ms() - lease.deadline_ms, 0)
        since = "" if lease.auto_renew else f" since {span(late_ms)}"
        if lease.attempt >= group.max_attempts:
            return f"due{since}, after attempt {lease.attempt}, the last one: it becomes a dead letter when asked for"
        return f"due again{since}, after attempt {lease.attempt} of {group.max_attempts}"

    def _fresh(self, group: Group, queue: Queue, offset: int, high: int | None) -> str:
        if high is None and group.definition.start == record_pb2.START_LAST and not self._has_begun(group, queue.topic):
            return "the group has not read the topic yet, and begins at its end: it will not get this message"
        if high is None:
            ahead = offset - queue.first_offset
            unread = "the group has read nothing from this queue yet"
            return f"{unread}; {_behind(ahead)}" if ahead > 0 else unread
        return _behind(offset - high) if offset > high else "it is the next of its queue"

    def _has_begun(self, group: Group, topic: Topic) -> bool:
        return any(True for _progress in self._state.progress_of(group, topic))

    def _nobody(self, group: Group, queue: Queue) -> str:
        members = self._clients.members(group.name)
        if not members:
            return "no member of the group is connected"
        if not any(queue.topic.name in member.subscriptions for member in members):
            return "no connected member subscribes to the topic"
        return ""

    def _forbidden(self, topic: Topic) -> str:
        if not can_read(self._state.broker.permission):
            return "this broker permits no reads"
        return "" if can_read(topic.permission) else "the topic permits no reads"


def _behind(messages: int) -> str:
    return f"behind {messages} other message{'s' * (messages > 1)} of its queue"


def span(ms: int) -> str:
    """A length of time for people: the two largest units that say something."""
    if ms < 10_000:
        return f"{max(ms, 0) / 1000:.1f} s"
    seconds = ms // 1000
    for size, unit, small, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = seconds % size // small
            return f"{seconds // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"
