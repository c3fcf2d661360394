"""What is sent and what is received, as plain Python; the protobuf form stays inside the library."""

from __future__ import annotations

import hashlib
import socket
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from kourou.errors import CorruptMessage, InvalidArgument
from kourou.limits import MAX_BODY_BYTES
from kourou.names import lite_topic_fault, topic_fault
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp

_HOST = socket.gethostname()
_GZIP_WBITS = zlib.MAX_WBITS | 16


class MessageType(StrEnum):
    """What a message is, and what the topic has to be that takes it."""

    NORMAL = "normal"
    FIFO = "fifo"
    """In order within its message group."""
    DELAY = "delay"
    """Delivered from a time on that the sender sets."""
    TRANSACTION = "transaction"
    """Delivered once its transaction is committed."""
    LITE = "lite"
    """In order within its lite topic, a small topic inside a topic."""
    PRIORITY = "priority"


_NORMAL = MessageType.NORMAL
_WIRE_TYPE = {
    MessageType.NORMAL: v2.NORMAL,
    MessageType.FIFO: v2.FIFO,
    MessageType.DELAY: v2.DELAY,
    MessageType.TRANSACTION: v2.TRANSACTION,
    MessageType.LITE: v2.LITE,
    MessageType.PRIORITY: v2.PRIORITY,
}
_TYPE_OF_WIRE = {wire: type_ for type_, wire in _WIRE_TYPE.items()}


@dataclass(frozen=True, slots=True)
class Message:
    """A message to send. Raises InvalidArgument when no broker would take it.

    At most one of message_group, delivery_time, priority and lite_topic is set, and makes it a message of that type."""

    topic: str
    body: bytes
    """1 byte to 4 MiB."""
    tag: str | None = None
    """By which consumers may filter."""
    keys: Sequence[str] = ()
    """By which it can be found later, such as an order number."""
    properties: Mapping[str, str] = field(default_factory=dict[str, str])
    message_group: str | None = None
    """FIFO: messages of one group are delivered in the order in which they were sent."""
    delivery_time: datetime | None = None
    """DELAY: no consumer sees it before; with its time zone, as in `datetime.now(UTC) + timedelta(minutes=5)`. What is
    past already is delivered at once."""
    priority: int | None = None
    """PRIORITY: from 0; higher ones are delivered first. A queue of a broker is a level, the last also all above it."""
    lite_topic: str | None = None
    """LITE: 1 to 64 letters, digits, _ and -. It comes to be with its first message."""

    def __post_init__(self) -> None:
        fault = topic_fault(self.topic) or _body_fault(self.body) or _tag_fault(self.tag)
        fault = fault or _keys_fault(self.keys) or _properties_fault(self.properties)
        if self.type is not _NORMAL:
            fault = fault or _type_fault(self)
        if fault:
            raise InvalidArgument(fault)

    @property
    def type(self) -> MessageType:
        """What it is by the fields that are set; TRANSACTION is nothing that a message is by itself."""
        if self.message_group is not None:
            return MessageType.FIFO
        if self.delivery_time is not None:
            return MessageType.DELAY
        if self.priority is not None:
            return MessageType.PRIORITY
        return _NORMAL if self.lite_topic is None else MessageType.LITE


@dataclass(frozen=True, slots=True)
class SendResult:
    """A message that the broker has stored, as durably as the broker is set to."""

    message_id: str
    """The producer's id; the same through all retries and deliveries."""
    offset_message_id: str | None
    """Where the broker stored it; None from brokers that do not say."""
    topic: str
    broker: str
    queue_id: int
    """The broker chooses it. -1 while the message is in no queue: delayed, or of an open transaction."""
    offset: int
    """The position in its queue; -1 as above."""
    recall_handle: str | None = None
    """Of a delayed message: `Producer.recall` takes it back."""
    transaction_id: str | None = None
    """Of a message in a transaction."""


class ReceivedMessage:
    """A message as a consumer has it."""

    __slots__ = ("_body", "_message", "address", "attempt", "broker", "queue_id", "receipt_handle")

    def __init__(self, message: v2.Message, broker: str, address: str) -> None:
        self._message = message
        self._body: bytes | None = None
        self.broker = broker
        """The name of the broker it came from."""
        self.address = address
        """The "host:port" of that broker."""
        self.queue_id = message.system_properties.queue_id
        self.receipt_handle = message.system_properties.receipt_handle
        """What settles this delivery; changes with its invisible time. Empty when broadcasting."""
        self.attempt = max(1, message.system_properties.delivery_attempt)
        """Which delivery of this message to the group it is, from 1."""

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
        return _TYPE_OF_WIRE.get(self._message.system_properties.message_type, MessageType.NORMAL)

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


def to_half_message(message: Message, message_id: str, born: Timestamp) -> v2.Message:
    """The message as it begins a transaction. Raises InvalidArgument when it is of another type by itself."""
    if message.type is not MessageType.NORMAL:
        raise InvalidArgument(f"a {message.type} message cannot be part of a transaction")
    encoded = to_protobuf(message, message_id, born)
    encoded.system_properties.message_type = v2.TRANSACTION
    return encoded


def to_protobuf(message: Message, message_id: str, born: Timestamp) -> v2.Message:
    """The message as it is sent; the queue is set later, for each attempt."""
    encoded = v2.Message(
        topic=v2.Resource(name=message.topic),
        user_properties=message.properties,
        system_properties=v2.SystemProperties(
            tag=message.tag,
            keys=message.keys,
            message_id=message_id,
            # MD5 is the one digest that all official consumers read the same way; some stumble over none.
            body_digest=v2.Digest(
                type=v2.MD5, checksum=hashlib.md5(message.body, usedforsecurity=False).hexdigest().upper()
            ),
            body_encoding=v2.IDENTITY,
            message_type=v2.NORMAL,
            born_timestamp=born,
            born_host=_HOST,
        ),
        body=message.body,
    )
    if message.type is not _NORMAL:
        _set_type(encoded.system_properties, message)
    return encoded


def _set_type(system: v2.SystemProperties, message: Message) -> None:
    system.message_type = _WIRE_TYPE[message.type]
    if message.message_group is not None:
        system.message_group = message.message_group
    elif message.delivery_time is not None:
        system.delivery_timestamp.FromDatetime(message.delivery_time.astimezone(UTC))
    elif message.priority is not None:
        system.priority = message.priority
    elif message.lite_topic is not None:
        system.lite_topic = message.lite_topic


def _type_fault(message: Message) -> str | None:
    names = ("message_group", "delivery_time", "priority", "lite_topic")
    given = [name for name in names if getattr(message, name) is not None]
    if len(given) > 1:
        return f"a message has one type, and cannot have {' and '.join(given)}"
    return (
        _message_group_fault(message.message_group)
        or _delivery_time_fault(message.delivery_time)
        or _priority_fault(message.priority)
        or _lite_topic_fault(message.lite_topic)
    )


def _message_group_fault(group: str | None) -> str | None:
    if group is None:
        return None
    return _text_fault("message group", group) or (None if group.strip() else "the message group is blank")


def _delivery_time_fault(time: object) -> str | None:
    if time is None:
        return None
    if not isinstance(time, datetime):
        return f"the delivery time {time!r} is {type(time).__name__}, not datetime"
    if time.utcoffset() is None:
        return f"the delivery time {time} has no time zone: datetime.now(UTC) + timedelta(minutes=5) would be right"
    try:
        time.astimezone(UTC)
    except OverflowError:
        return f"the delivery time {time} is out of range"
    return None


def _priority_fault(priority: object) -> str | None:
    if priority is None:
        return None
    if not isinstance(priority, int) or isinstance(priority, bool):
        return f"the priority {priority!r} is {type(priority).__name__}, not int"
    return None if 0 <= priority < 1 << 31 else f"the priority {priority} is not from 0 to {(1 << 31) - 1}"


def _lite_topic_fault(name: str | None) -> str | None:
    if name is None:
        return None
    return _text_fault("lite topic", name) or lite_topic_fault(name)


def _body_fault(body: object) -> str | None:
    if not isinstance(body, bytes):
        return f"the body is {type(body).__name__}, not bytes"
    if not body:
        return "the body is empty"
    if len(body) > MAX_BODY_BYTES:
        return f"the body has {len(body)} bytes; at most {MAX_BODY_BYTES} are allowed"
    return None


def _tag_fault(tag: str | None) -> str | None:
    if tag is None:
        return None
    if fault := _text_fault("tag", tag):
        return fault
    if not tag.strip():
        return "the tag is blank"
    if "|" in tag:
        return f"the tag {tag!r} has a '|', which separates tags in filters"
    return None if tag.isprintable() else f"the tag {tag!r} has a control character"


def _keys_fault(keys: Sequence[str]) -> str | None:
    if isinstance(keys, str):
        return f"keys is one string, not a sequence of strings: [{keys!r}] would be right"
    for key in keys:
        if fault := _text_fault("key", key):
            return fault
        if not key.strip():
            return f"the key {key!r} is blank"
    return None


def _properties_fault(properties: Mapping[str, str]) -> str | None:
    for text in (*properties, *properties.values()):
        if fault := _text_fault("property", text):
            return fault
    return "a property has an empty name" if "" in properties else None


def _text_fault(what: str, text: object) -> str | None:
    if not isinstance(text, str):
        return f"the {what} {text!r} is {type(text).__name__}, not str"
    try:
        text.encode()
    except UnicodeEncodeError:  # as of a command line that is not UTF-8
        return f"the {what} {text!r} is no Unicode text"
    return None


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
