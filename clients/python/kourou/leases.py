"""What a consumer was lent over the stream door, and still has to settle."""

from __future__ import annotations

from kourou.protocol.kourou.stream.v1 import stream_pb2


class Lent:
    """Messages of one queue under one lease."""

    __slots__ = ("lease", "unsettled_count")

    def __init__(self, lease: stream_pb2.Lease, count: int) -> None:
        self.lease = lease
        self.unsettled_count = count

    def receipt_handle(self, offset: int) -> str:
        """Tells a delivery from others; it is of no other use."""
        return f"{self.lease.incarnation:x}.{self.lease.number:x}.{self.lease.queue:x}.{offset:x}"
