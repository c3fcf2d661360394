"""When lent messages are due again: the leases of each queue, by deadline. Soft state, made anew from the fold."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count

from kourou_broker.state.records import Lease

MAX_RENEWAL_MS = 3 * 3_600_000
_COMPACT_FROM = 1024


def before_deadline(lease: Lease, now_ms: int) -> bool:
    return lease.deadline_ms > now_ms


class DueLeases:
    """A lease whose messages were settled leaves when it comes up, or when too many such ones have gathered."""

    def __init__(self, may_live: Callable[[str], bool], incarnation: int) -> None:
        """may_live: whether the client with this id is not known to be gone. incarnation: of this run of the broker."""
        self._may_live = may_live
        self._incarnation = incarnation
        self._heaps: dict[int, list[tuple[int, int, Lease]]] = {}
        self._numbers = count()  # so that equal times never compare leases
        self._given_back: set[Lease] = set()

    @property
    def earliest_ms(self) -> int | None:
        return min((heap[0][0] for heap in self._heaps.values() if heap), default=None)

    def watch(self, queue: int, lease: Lease, at_ms: int | None = None) -> None:
        """The lease comes up at its deadline, or at another time."""
        heappush(self._heaps.setdefault(queue, []), (at_ms or lease.deadline_ms, next(self._numbers), lease))

    def take(self, queue: int, now_ms: int) -> Lease | None:
        """The next lease of the queue whose time has come."""
        heap = self._heaps.get(queue)
        return heappop(heap)[2] if heap and heap[0][0] <= now_ms else None

    def is_lent(self, lease: Lease, now_ms: int) -> bool:
        """Whether the lease's messages are with its client, as far as the broker knows; else they are due."""
        if lease in self._given_back:
            return False
        if lease.auto_renew:
            return self._may_live(lease.client_id) and now_ms <= lease.deadline_ms + MAX_RENEWAL_MS
        return before_deadline(lease, now_ms)

    def renews(self, lease: Lease, now_ms: int) -> bool:
        """Whether the lease goes on past its deadline, because its client lives and still has the messages."""
        if not lease.auto_renew or lease in self._given_back or not self._may_live(lease.client_id):
            return False
        if now_ms > lease.deadline_ms + MAX_RENEWAL_MS:
            return False  # nobody works on a message for so long: the answer was lost, or the listener hangs
        if lease.incarnation != self._incarnation:
            # The broker may have been killed before its answer left, and then no client has the messages, though it
            # lives. So a lease of an earlier run is renewed once, for who is at work on them, and then they come again.
            self._given_back.add(lease)
        return True

    def give_back(self, queue: int, lease: Lease, at_ms: int) -> None:
        """The client lives, but never got the messages."""
        self._given_back.add(lease)
        self.watch(queue, lease, at_ms)

    def ended(self, lease: Lease) -> None:
        """The lease came up and holds nothing any more."""
        self._given_back.discard(lease)

    def client_gone(self, client_id: str, now_ms: int) -> None:
        """What the client was to keep while it lived is due now; an explicit invisible time always runs out."""
        for heap in self._heaps.values():
            for place, (_at, number, lease) in enumerate(heap):
                if lease.auto_renew and lease.client_id == client_id:
                    heap[place] = (now_ms, number, lease)
            heapify(heap)

    def forget(self, queue: int, pending: int, holds: Callable[[Lease], bool]) -> None:
        """Lets go of leases that hold nothing any more, if they outnumber the pending messages by far."""
        heap = self._heaps.get(queue, [])
        if len(heap) > _COMPACT_FROM + 2 * pending:
            heap[:] = [entry for entry in heap if holds(entry[2])]
            heapify(heap)
            self._given_back.intersection_update(entry[2] for heap in self._heaps.values() for entry in heap)
