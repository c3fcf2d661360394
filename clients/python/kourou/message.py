"""A message to send, as plain Python; the protobuf form stays inside the library."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Self

from kourou.errors import InvalidArgument
from kourou.limits import MAX_BODY_BYTES
from kourou.names import lite_topic_fault, topic_fault
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp

HOST = socket.gethostname()


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
WIRE_TYPE = {
    MessageType.NORMAL: v2.NORMAL,
    MessageType.FIFO: v2.FIFO,
    MessageType.DELAY: v2.DELAY,
    MessageType.TRANSACTION: v2.TRANSACTION,
    MessageType.LITE: v2.LITE,
    MessageType.PRIORITY: v2.PRIORITY,
}
TYPE_OF_WIRE = {wire: type_ for type_, wire in WIRE_TYPE.items()}


@dataclass(frozen=True, slots=True, init=False)
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

    type: MessageType = field(init=False, repr=False, compare=False)
    """What it is by the fields that are set; TRANSACTION is nothing that a message is by itself."""
    size_bytes: int = field(init=False, repr=False, compare=False)
    """Of the body, the tag, the keys and the properties, roughly."""

    # Senders make millions of them. What a frozen dataclass would do takes four times as long as to fill in an open
    # object of the same layout, and to close it then.
    def __new__(
        cls,
        topic: str,
        body: bytes,
        tag: str | None = None,
        keys: Sequence[str] = (),
        properties: Mapping[str, str] | None = None,
        message_group: str | None = None,
        delivery_time: datetime | None = None,
        priority: int | None = None,
        lite_topic: str | None = None,
    ) -> Self:
        message: Any = _Open()
        message.topic = topic
        message.body = body
        message.tag = tag
        message.keys = keys
        message.properties = {} if properties is None else properties
        message.message_group = message_group
        message.delivery_time = delivery_time
        message.priority = priority
        message.lite_topic = lite_topic
        message.type = _NORMAL
        size_bytes = 0
        fault = _topic_fault(topic) or _body_fault(body)
        if tag is not None:
            fault = fault or _tag_fault(tag)
            size_bytes = 0 if fault else len(tag)
        if keys:
            fault = fault or _keys_fault(keys)
            size_bytes += 0 if fault else sum(map(len, keys))
        if properties:
            fault = fault or _properties_fault(properties)
            size_bytes += 0 if fault else sum(map(len, properties)) + sum(map(len, properties.values()))
        message.size_bytes = 0 if fault else size_bytes + len(body)
        if not (message_group is delivery_time is priority is lite_topic is None):
            message.type = _type_of(message)
            fault = fault or _type_fault(message)
        if fault:
            raise InvalidArgument(fault)
        message.__class__ = cls
        return message

    def __getnewargs__(self) -> tuple[Any, ...]:
        """For pickle and copy."""
        return (
            self.topic,
            self.body,
            self.tag,
            self.keys,
            self.properties,
            self.message_group,
            self.delivery_time,
            self.priority,
            self.lite_topic,
        )


class _Open:
    """A message that is being filled in: of the layout of Message, which its class becomes."""

    __slots__ = tuple(Message.__dataclass_fields__)


def _type_of(message: Message) -> MessageType:
    if message.message_group is not None:
        return MessageType.FIFO
    if message.delivery_time is not None:
        return MessageType.DELAY
    return MessageType.LITE if message.priority is None else MessageType.PRIORITY


def to_protobuf(message: Message, message_id: str, born: Timestamp, type_: MessageType | None = None) -> v2.Message:
    """As it is sent through apache.rocketmq.v2; the queue is set later, for each attempt. `type_`: TRANSACTION, if it
    begins one."""
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
            message_type=WIRE_TYPE[type_ or message.type],
            born_timestamp=born,
            born_host=HOST,
        ),
        body=message.body,
    )
    if message.type is not _NORMAL:
        _set_type(encoded.system_properties, message)
    return encoded


def _set_type(system: v2.SystemProperties, message: Message) -> None:
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


@lru_cache(4096)
def _topic_fault(topic: str) -> str | None:
    return topic_fault(topic)


def _body_fault(body: object) -> str | None:
    if not isinstance(body, bytes):
        return f"the body is {type(body).__name__}, not bytes"
    if not body:
        return "the body is empty"
    if len(body) > MAX_BODY_BYTES:
        return f"the body has {len(body)} bytes; at most {MAX_BODY_BYTES} are allowed"
    return None


def _tag_fault(tag: object) -> str | None:
    return _tag_text_fault(tag) if isinstance(tag, str) else _text_fault("tag", tag)


@lru_cache(4096)
def _tag_text_fault(tag: str) -> str | None:
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
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:  # as of a command line that is not UTF-8
        return f"the {what} {text!r} is no Unicode text"
    return None
