"""Deliveries on their way into a stream: a batch as it was stored, a part of one, or single messages."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from kourou.protocol.kourou.stream.v1 import stream_pb2
from kourou_broker.operations.message import join, varint
from kourou_broker.operations.poll import Delivery
from kourou_broker.operations.section_reader import Run, StoredMessage
from kourou_broker.state.records import Lease

MAX_RESPONSE_BYTES = 1024 * 1024
"""Of what is not sent as it was stored; one message may be larger."""
_DELIVERY = b"\x0a"  # field 1 of ConsumeResponse
_BODIES = b"\x32"  # field 6 of Delivery
NOTHING = stream_pb2.ConsumeResponse(delivery=stream_pb2.Delivery(last=True)).SerializeToString()
"""A credit's time is over."""


@dataclass(slots=True)
class Part:
    """One response."""

    delivery: stream_pb2.Delivery
    bodies: bytes | memoryview = b""

    def encode(self, *, last: bool) -> bytes:
        """Bodies are large, so they are not put into the message: it would copy them twice."""
        self.delivery.last = last
        head = self.delivery.SerializeToString()
        if not self.bodies:
            return b"".join((_DELIVERY, varint(len(head)), head))
        bodies_head = _BODIES + varint(len(self.bodies))
        size = len(head) + len(bodies_head) + len(self.bodies)
        return b"".join((_DELIVERY, varint(size), head, bodies_head, self.bodies))


def responses(delivery: Delivery, codecs: Collection[int]) -> Iterator[Part]:
    """codecs: those that the client can unpack."""
    messages = delivery.messages
    if isinstance(messages, Run):
        yield from _of_batch(delivery, messages, codecs)
        return
    lease = lease_of(delivery.queue.id, delivery.lease)
    for some in _portions(messages):
        yield Part(
            stream_pb2.Delivery(
                lease=lease,
                attempt=delivery.lease.attempt,
                messages=[join(message.head, message.tail) for message in some],
                offsets=[message.offset for message in some],
                messages_stored_ms=[message.stored_ms for message in some],
            )
        )


def _of_batch(delivery: Delivery, run: Run, codecs: Collection[int]) -> Iterator[Part]:
    section, batch = run.section, run.section.batch
    if _goes_as_stored(run, codecs):
        indexes = () if run.whole else range(run.first, run.first + len(run))
        yield _part(delivery, run, section.base, batch.raw_headers, batch.raw_bodies, indexes)
        return
    for places in batch.parts(run.first, len(run), MAX_RESPONSE_BYTES):
        headers, bodies = batch.part(places.start, len(places))
        yield _part(delivery, run, section.base + places.start, headers, bodies)


def _goes_as_stored(run: Run, codecs: Collection[int]) -> bool:
    codec = run.section.batch.headers.codec
    if not codec:
        return run.whole
    return codec in codecs and 2 * len(run) >= run.section.count  # to unpack it for the rest would cost more


def _part(
    delivery: Delivery, run: Run, base: int, headers: bytes, bodies: memoryview, indexes: Sequence[int] = ()
) -> Part:
    made = stream_pb2.Delivery(
        lease=lease_of(delivery.queue.id, delivery.lease),
        attempt=delivery.lease.attempt,
        base_offset=base,
        stored_ms=run.section.stored_ms,
        headers=headers,
        indexes=indexes,
    )
    return Part(made, bodies)


def lease_of(queue: int, lease: Lease) -> stream_pb2.Lease:
    return stream_pb2.Lease(queue=queue, incarnation=lease.incarnation, number=lease.number)


def _portions(messages: Sequence[StoredMessage]) -> Iterator[list[StoredMessage]]:
    some: list[StoredMessage] = []
    size = 0
    for message in messages:
        length = len(message.head) + len(message.tail)
        if some and size + length > MAX_RESPONSE_BYTES:
            yield some
            some, size = [], 0
        some.append(message)
        size += length
    yield some
