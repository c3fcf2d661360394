"""Attempt ids: a client that repeats a receive with the same one gets the same messages again, not further ones."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from kourou_broker.operations.poll import Delivery
from kourou_broker.state.records import Lease

MAX_ATTEMPT_IDS = 4096


class Attempts:
    """holds tells whether a lease on a queue still holds any message."""

    def __init__(self, holds: Callable[[int, Lease], bool]) -> None:
        self._holds = holds
        self._leases: dict[str, list[tuple[int, Lease]]] = {}

    def remember(self, attempt_id: str, deliveries: Iterable[Delivery]) -> None:
        leases = list({(delivery.queue.id, delivery.lease) for delivery in deliveries})
        if not attempt_id or not leases:
            return
        for oldest in list(islice(self._leases, 2)):  # those that hold nothing any more go, two for each that comes
            kept = self._leases.pop(oldest)
            if len(self._leases) < MAX_ATTEMPT_IDS and any(self._holds(*lease) for lease in kept):
                self._leases[oldest] = kept
        self._leases[attempt_id] = leases

    def leases(self, attempt_id: str) -> Sequence[tuple[int, Lease]]:
        """Queues and leases that the attempt was answered with."""
        return self._leases.get(attempt_id, ())
