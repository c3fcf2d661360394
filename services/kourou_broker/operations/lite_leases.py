"""When lite topics come up again, whose messages were lent: one entry for each of them, however many leases it has."""

from collections.abc import Callable
from heapq import heappop, heappush

from kourou_broker.operations.due_leases import MAX_RENEWAL_MS, DueLeases
from kourou_broker.state.records import Lease

_GRACE_MS = 60_000
_LOOK_AGAIN_MS = 60_000
"""A lease that goes on as long as its client lives is looked at so often."""


class LiteLeases(DueLeases):
    """Of a lite topic nothing is due before all that is lent of it is: so what comes up is the lite topic."""

    def __init__(self, may_live: Callable[[str], bool], incarnation: int, started_ms: int) -> None:
        super().__init__(may_live, incarnation)
        self._alive = may_live
        self._this_run = incarnation
        self._started_ms = started_ms
        self._times: list[tuple[int, int]] = []
        """Time (ms) and queue, a heap."""
        self._next: dict[int, int] = {}
        """When each queue comes up first; other entries of the heap are old."""
        self._returned: dict[Lease, int] = {}
        """What did not reach its client, and until when it waits for him to ask again."""
        self._queues_of: dict[str, set[int]] = {}
        """What clients may hold as long as they live."""

    @property
    def earliest_ms(self) -> int | None:
        while self._times and self._next.get(self._times[0][1]) != self._times[0][0]:
            heappop(self._times)
        return self._times[0][0] if self._times else None

    def watch(self, queue: int, lease: Lease, at_ms: int | None = None) -> None:
        if lease.auto_renew:
            self._queues_of.setdefault(lease.client_id, set()).add(queue)
        self.look_at(queue, at_ms or lease.deadline_ms)

    def look_at(self, queue: int, at_ms: int) -> None:
        """The queue comes up at that time, if it does not before."""
        known = self._next.get(queue)
        if known is None or at_ms < known:
            self._next[queue] = at_ms
            heappush(self._times, (at_ms, queue))

    def come_up(self, now_ms: int) -> list[int]:
        """The queues whose time has come."""
        queues: list[int] = []
        while (earliest_ms := self.earliest_ms) is not None and earliest_ms <= now_ms:
            queue = heappop(self._times)[1]
            del self._next[queue]
            queues.append(queue)
        return queues

    def lent_until(self, lease: Lease, now_ms: int) -> int:
        """When to look again at a lease whose messages are with its client, as far as the broker knows; else 0."""
        if lease in self._returned:
            until_ms = self._returned[lease]
        elif not lease.auto_renew:
            until_ms = lease.deadline_ms
        elif not self._alive(lease.client_id):
            return 0
        elif lease.incarnation != self._this_run:
            # The broker may have been killed before its answer left: who is at work on the messages has a little time.
            until_ms = max(lease.deadline_ms, self._started_ms) + _GRACE_MS
        elif lease.deadline_ms + MAX_RENEWAL_MS <= now_ms:
            return 0  # nobody works on a message for so long: the answer was lost, or the listener hangs
        else:
            until_ms = max(lease.deadline_ms, now_ms + _LOOK_AGAIN_MS)
        return until_ms if until_ms > now_ms else 0

    def is_lent(self, lease: Lease, now_ms: int) -> bool:
        return lease not in self._returned and self.lent_until(lease, now_ms) > 0

    def give_back(self, queue: int, lease: Lease, at_ms: int) -> None:
        self._returned[lease] = at_ms
        self.look_at(queue, at_ms)

    def ended(self, lease: Lease) -> None:
        self._returned.pop(lease, None)

    def client_gone(self, client_id: str, now_ms: int) -> None:
        for queue in self._queues_of.pop(client_id, ()):
            self.look_at(queue, now_ms)

    def forget(self, queue: int, pending: int, holds: Callable[[Lease], bool]) -> None:
        """There is nothing to let go of."""
