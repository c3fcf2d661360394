"""How far one group has come in one queue."""

from collections import defaultdict
from collections.abc import Collection, Iterable

from kourou_broker.state.records import Lease, holding_back


class Progress:
    """A message at an offset is settled, pending (lent, or due to be lent again) or fresh.

    Fresh is all from `high` on; pending what `pending` holds; the rest below `high` is settled. So a slow message holds
    up nobody, and memory is bounded by what is pending, which the operations limit.
    """

    __slots__ = ("group", "high", "pending", "queue", "topic")

    def __init__(self, group: int, topic: int, queue: int, high: int) -> None:
        self.group = group
        self.topic = topic
        self.queue = queue
        self.high = high
        self.pending: dict[int, Lease] = {}

    @property
    def low(self) -> int:
        """The lowest offset that is not settled. It looks at all that is pending: only people ask for it."""
        return min(self.pending, default=self.high)

    def lend(self, lease: Lease, high: int) -> None:
        """Only what is fresh or pending can be lent: what was settled in the same turn stays settled."""
        offsets = lease.offsets
        if isinstance(offsets, range) and offsets.start >= self.high:
            self.pending.update(dict.fromkeys(offsets, lease))
        else:
            for offset in offsets:
                if offset >= self.high or offset in self.pending:
                    self.pending[offset] = lease
        self.high = max(self.high, high)

    def settle(self, offsets: Iterable[int]) -> None:
        for offset in offsets:
            self.pending.pop(offset, None)

    def resend(self, offset: int) -> None:
        """A settled message is due again, as if it had never been tried. A fresh or a pending one comes anyway."""
        if offset < self.high and offset not in self.pending:
            self.pending[offset] = holding_back([offset])

    def set(self, offset: int) -> None:
        self.pending.clear()
        self.high = offset

    def trim(self, first_offset: int) -> None:
        """Fresh messages below have expired; pending ones were carried forward."""
        self.high = max(self.high, first_offset)

    def restore(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            for offset in lease.offsets:
                self.pending[offset] = lease

    def leases(self) -> list[tuple[Lease, list[int]]]:
        """Each lease with the offsets that it still holds."""
        held: dict[int, tuple[Lease, list[int]]] = {}
        for offset, lease in self.pending.items():
            held.setdefault(id(lease), (lease, []))[1].append(offset)
        return list(held.values())


class ProgressOfAll(dict[tuple[int, int, int], Progress]):
    """By group id, topic id and queue. Those of one queue are found without a walk over all groups or all that is here.

    It is changed by setting and deleting single keys only.
    """

    def __init__(self) -> None:
        super().__init__()
        self._by_queue: defaultdict[tuple[int, int], dict[int, Progress]] = defaultdict(dict)

    def __setitem__(self, key: tuple[int, int, int], progress: Progress) -> None:
        super().__setitem__(key, progress)
        group, topic, queue = key
        self._by_queue[topic, queue][group] = progress

    def __delitem__(self, key: tuple[int, int, int]) -> None:
        super().__delitem__(key)
        group, topic, queue = key
        of_queue = self._by_queue[topic, queue]
        del of_queue[group]
        if not of_queue:
            del self._by_queue[topic, queue]

    def of_queue(self, topic: int, queue: int) -> Collection[Progress]:
        """Of all groups; to be read at once."""
        of_queue = self._by_queue.get((topic, queue))
        return of_queue.values() if of_queue is not None else ()

    def forget_queue(self, topic: int, queue: int) -> None:
        for group in self._by_queue.pop((topic, queue), ()):
            super().__delitem__((group, topic, queue))
