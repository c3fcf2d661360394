"""Messages out of a Delivery of the stream door."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from kourou.batch import Columns
from kourou.errors import CorruptMessage
from kourou.leases import Lent
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.stream.v1 import stream_pb2
from kourou.received import BatchMessage, Origin, ReceivedMessage


def count_of(delivery: stream_pb2.Delivery) -> int:
    """How many messages it has, as far as that can be told without its columns: 0 only for none."""
    return len(delivery.indexes) or len(delivery.messages) or bool(delivery.headers)


def columns_of(delivery: stream_pb2.Delivery) -> Columns | None:
    """Of a batch; None for single messages. Raises CorruptMessage."""
    if not delivery.headers:
        if not len(delivery.messages) == len(delivery.offsets) == len(delivery.messages_stored_ms):
            raise CorruptMessage(f"{len(delivery.messages)} messages came with {len(delivery.offsets)} offsets")
        return None
    columns = Columns(delivery.headers, delivery.bodies)
    if delivery.indexes and max(delivery.indexes) >= len(columns):
        raise CorruptMessage(f"a batch of {len(columns)} messages has none with index {max(delivery.indexes)}")
    return columns


def messages_of(
    delivery: stream_pb2.Delivery, columns: Columns | None, lent: Lent, topic: str, broker: str, address: str
) -> list[ReceivedMessage]:
    """Raises CorruptMessage."""
    attempt = max(1, delivery.attempt)
    queue_id = delivery.lease.queue
    if columns is not None:
        origin = Origin(topic, broker, address, queue_id, delivery.base_offset, delivery.stored_ms)
        indexes = delivery.indexes or range(len(columns))
        return [BatchMessage(columns, index, origin, attempt, lent) for index in indexes]
    messages: list[ReceivedMessage] = []
    rows = zip(delivery.messages, delivery.offsets, delivery.messages_stored_ms, strict=True)
    for encoded, offset, stored_ms in rows:
        try:
            wire = v2.Message.FromString(encoded)
        except DecodeError as error:
            raise CorruptMessage(f"message {offset} of queue {queue_id} of {topic} cannot be read: {error}") from None
        system = wire.system_properties
        system.queue_id = queue_id
        system.queue_offset = offset
        system.delivery_attempt = attempt
        system.store_timestamp.FromMilliseconds(stored_ms)
        message = ReceivedMessage(wire, broker, address)
        message.lent = lent
        messages.append(message)
    return messages
