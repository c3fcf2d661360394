"""What a consumer was lent over the stream door, and still has to settle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kourou.protocol.kourou.stream.v1 import stream_pb2

if TYPE_CHECKING:
    from kourou.settling import Settling

LeaseKey = tuple[int, int, int]


class Lent:
    """Messages of one queue under one lease."""

    __slots__ = ("ends_s", "lease", "settling", "unsettled_count")

    def __init__(self, lease: stream_pb2.Lease, settling: Settling, ends_s: float) -> None:
        """`ends_s`: when the messages go to others, in the loop's time."""
        self.lease = lease
        self.settling = settling
        self.ends_s = ends_s
        self.unsettled_count = 0

    def receipt_handle(self, offset: int) -> str:
        """Tells a delivery from others; it is of no other use."""
        return f"{self.lease.incarnation:x}.{self.lease.number:x}.{self.lease.queue:x}.{offset:x}"


class Leases:
    """Of one stream, over all its connections: those of which a message is not settled yet."""

    def __init__(self) -> None:
        self._lent: dict[LeaseKey, Lent] = {}

    def take(self, lease: stream_pb2.Lease, count: int, settling: Settling, ends_s: float) -> Lent:
        """So many more messages under that lease."""
        key = _key(lease)
        lent = self._lent.get(key)
        if lent is None:
            lent = self._lent[key] = Lent(lease, settling, ends_s)
        lent.unsettled_count += count
        return lent

    def settled(self, lent: Lent, count: int) -> None:
        """So many of its messages are no longer held by it."""
        lent.unsettled_count -= count
        if lent.unsettled_count <= 0:
            self._lent.pop(_key(lent.lease), None)

    def held(self, now_s: float) -> list[stream_pb2.Lease]:
        """Those that did not end by time."""
        for key, lent in list(self._lent.items()):
            if lent.ends_s <= now_s:
                del self._lent[key]
        return [lent.lease for lent in self._lent.values()]


def _key(lease: stream_pb2.Lease) -> LeaseKey:
    return lease.queue, lease.incarnation, lease.number
