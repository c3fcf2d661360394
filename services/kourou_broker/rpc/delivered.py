"""A stored message as a client gets it."""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.google.protobuf import duration_pb2, timestamp_pb2
from kourou_broker.operations import receipt
from kourou_broker.operations.message import digest, join, varint
from kourou_broker.operations.poll import Delivery
from kourou_broker.operations.section_reader import StoredMessage

_MESSAGE_TAG = b"\x12"  # field 2 of ReceiveMessageResponse and of PullMessageResponse, length-delimited


class Deliverer:
    """store_host is the address that deliveries name as their broker's."""

    def __init__(self, store_host: str) -> None:
        self._store_host = store_host

    def lent(
        self, delivery: Delivery, message: StoredMessage, group_id: int, invisible: duration_pb2.Duration
    ) -> bytes:
        """A ReceiveMessageResponse with one of the delivery's messages, under its lease."""
        queue, _messages, lease = delivery
        fields = self._stored_fields(queue.id, message)
        fields.receipt_handle = receipt.encode((group_id, queue.topic.id, queue.id), message.offset, lease)
        fields.invisible_duration.CopyFrom(invisible)
        fields.delivery_attempt = lease.attempt
        return _response(message, fields)

    def pulled(self, queue_id: int, message: StoredMessage) -> bytes:
        """A PullMessageResponse with the message."""
        return _response(message, self._stored_fields(queue_id, message))

    def found(self, queue_id: int | None, message: StoredMessage) -> definition_pb2.Message:
        """queue_id: None of a message that is in no queue yet."""
        tail = message.tail + self._stored_fields(queue_id, message).SerializeToString()
        return definition_pb2.Message.FromString(join(message.head, tail))

    def _stored_fields(self, queue_id: int | None, message: StoredMessage) -> definition_pb2.SystemProperties:
        sent = definition_pb2.SystemProperties.FromString(message.tail)
        return definition_pb2.SystemProperties(
            body_digest=None if sent.body_digest.checksum else digest(message.head),
            queue_id=queue_id,
            queue_offset=None if queue_id is None else message.offset,
            store_timestamp=timestamp_pb2.Timestamp(
                seconds=message.stored_ms // 1000, nanos=message.stored_ms % 1000 * 1_000_000
            ),
            store_host=self._store_host,
        )


def _response(message: StoredMessage, fields: definition_pb2.SystemProperties) -> bytes:
    """Appended fields belong to the one system_properties, which stands last: some decoders do not merge two."""
    whole = join(message.head, message.tail + fields.SerializeToString())
    return b"".join((_MESSAGE_TAG, varint(len(whole)), whole))
