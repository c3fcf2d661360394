"""A message as a consumer has it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import UTC, datetime

from kourou.batch import Columns, time_of_ms
from kourou.errors import CorruptMessage
from kourou.leases import Lent
from kourou.limits import MAX_BODY_BYTES
from kourou.message import TYPE_OF_WIRE, MessageType
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp

_GZIP_WBITS = zlib.MAX_WBITS | 16


class ReceivedMessage:
    """A message as a consumer has it."""

    __slots__ = ("_address", "_body", "_broker", "_message", "_receipt_handle", "attempt", "lent")

    def __init__(self, message: v2.Message, broker: str, address: str) -> None:
        self._message = message
        self._body: bytes | None = None
        self._broker = broker
        self._address = address
        self._receipt_handle = message.system_properties.receipt_handle
        self.attempt = max(1, message.system_properties.delivery_attempt)
        """Which delivery of this message to the group it is, from 1."""
        self.lent: Lent | None = None
        """The lease that the stream door gave it with; for the library alone."""

    @property
    def broker(self) -> str:
        """The name of the broker it came from."""
        return self._broker

    @property
    def address(self) -> str:
        """The "host:port" of that broker."""
        return self._address

    @property
    def queue_id(self) -> int:
        return self._message.system_properties.queue_id

    @property
    def receipt_handle(self) -> str:
        """What settles this delivery; changes with its invisible time. Empty when broadcasting."""
        return self._receipt_handle if self.lent is None else self.lent.receipt_handle(self.offset)

    def renewed(self, receipt_handle: str) -> None:
        """Has another receipt handle; for the library alone."""
        self._receipt_handle = receipt_handle

    @property
    def topic(self) -> str:
        return self._message.topic.name

    @property
    def body(self) -> bytes:
        """Unpacked. Raises CorruptMessage when it is not what its encoding says, or unpacks to more than 4 MiB."""
        if self._body is None:
            gzipped = self._message.system_properties.body_encoding == v2.GZIP
            self._body = _gunzip(self._message.body, self.message_id) if gzipped else self._message.body
        return self._body

    @property
    def type(self) -> MessageType:
        return TYPE_OF_WIRE.get(self._message.system_properties.message_type, MessageType.NORMAL)

    @property
    def message_group(self) -> str | None:
        system = self._message.system_properties
        return system.message_group if system.HasField("message_group") else None

    @property
    def delivery_time(self) -> datetime | None:
        """The time that the sender of a delayed message set."""
        system = self._message.system_properties
        return _datetime(system.delivery_timestamp) if system.HasField("delivery_timestamp") else None

    @property
    def priority(self) -> int | None:
        system = self._message.system_properties
        return system.priority if system.HasField("priority") else None

    @property
    def lite_topic(self) -> str | None:
        system = self._message.system_properties
        return system.lite_topic if system.HasField("lite_topic") else None

    @property
    def message_id(self) -> str:
        return self._message.system_properties.message_id

    @property
    def tag(self) -> str | None:
        system = self._message.system_properties
        return system.tag if system.HasField("tag") else None

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._message.system_properties.keys)

    @property
    def properties(self) -> dict[str, str]:
        return dict(self._message.user_properties)

    @property
    def offset(self) -> int:
        """The position in its queue."""
        return self._message.system_properties.queue_offset

    @property
    def born_at(self) -> datetime:
        """When the producer made it, by the producer's clock."""
        return _datetime(self._message.system_properties.born_timestamp)

    @property
    def stored_at(self) -> datetime | None:
        """When the broker stored it, by the broker's clock."""
        system = self._message.system_properties
        return _datetime(system.store_timestamp) if system.HasField("store_timestamp") else None

    @property
    def born_host(self) -> str:
        return self._message.system_properties.born_host

    @property
    def size_bytes(self) -> int:
        """Of the body as it was transferred."""
        return len(self._message.body)

    @property
    def dead_letter_of(self) -> tuple[str, str] | None:
        """For a message of a dead-letter topic, the topic and message id it had before."""
        system = self._message.system_properties
        if not system.HasField("dead_letter_queue"):
            return None
        return system.dead_letter_queue.topic, system.dead_letter_queue.message_id

    def __repr__(self) -> str:
        return (
            f"ReceivedMessage(topic={self.topic!r}, message_id={self.message_id!r}, broker={self.broker!r},"
            f" queue_id={self.queue_id}, offset={self.offset}, attempt={self.attempt}, size_bytes={self.size_bytes})"
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the messages of a batch come from."""

    topic: str
    broker: str
    address: str
    queue_id: int
    base_offset: int
    stored_ms: int


class BatchMessage(ReceivedMessage):
    """One of a batch: nothing is taken out of the columns before it is asked for."""

    __slots__ = ("_columns", "_index", "_origin")

    def __init__(self, columns: Columns, index: int, origin: Origin, attempt: int, lent: Lent) -> None:
        self._columns = columns
        self._index = index
        self._origin = origin
        self.attempt = attempt
        self.lent = lent

    @property
    def broker(self) -> str:
        return self._origin.broker

    @property
    def address(self) -> str:
        return self._origin.address

    @property
    def queue_id(self) -> int:
        return self._origin.queue_id

    @property
    def topic(self) -> str:
        return self._origin.topic

    @property
    def body(self) -> bytes:
        return self._columns.body(self._index)

    @property
    def type(self) -> MessageType:
        return self._columns.type

    @property
    def message_group(self) -> str | None:
        headers = self._columns.headers
        return headers.message_group if headers.HasField("message_group") else None

    @property
    def delivery_time(self) -> datetime | None:
        return self._columns.delivery_time(self._index)

    @property
    def priority(self) -> int | None:
        headers = self._columns.headers
        return headers.priority if headers.HasField("priority") else None

    @property
    def lite_topic(self) -> str | None:
        headers = self._columns.headers
        return headers.lite_topic if headers.HasField("lite_topic") else None

    @property
    def message_id(self) -> str:
        return self._columns.message_id(self._index)

    @property
    def tag(self) -> str | None:
        return self._columns.tag(self._index)

    @property
    def keys(self) -> tuple[str, ...]:
        return self._columns.keys(self._index)

    @property
    def properties(self) -> dict[str, str]:
        return self._columns.properties(self._index)

    @property
    def offset(self) -> int:
        return self._origin.base_offset + self._index

    @property
    def born_at(self) -> datetime:
        return time_of_ms(self._columns.headers.born_ms)

    @property
    def stored_at(self) -> datetime | None:
        return time_of_ms(self._origin.stored_ms)

    @property
    def born_host(self) -> str:
        return self._columns.headers.born_host

    @property
    def size_bytes(self) -> int:
        return self._columns.sizes[self._index]

    @property
    def dead_letter_of(self) -> tuple[str, str] | None:
        return None  # dead letters come one by one


def _gunzip(packed: bytes, message_id: str) -> bytes:
    unpack = zlib.decompressobj(_GZIP_WBITS)
    try:
        body = unpack.decompress(packed, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise CorruptMessage(f"the body of message {message_id} is no gzip: {error}") from None
    if len(body) > MAX_BODY_BYTES:
        raise CorruptMessage(f"the body of message {message_id} unpacks to more than {MAX_BODY_BYTES} bytes")
    if not unpack.eof:
        raise CorruptMessage(f"the gzip of the body of message {message_id} is cut off")
    return body


def _datetime(stamp: Timestamp) -> datetime:
    return datetime.fromtimestamp(stamp.seconds + stamp.nanos / 1e9, UTC)
