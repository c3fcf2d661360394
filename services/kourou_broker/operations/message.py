"""What a legal message is, and the form in which it is stored.

A message is checked once, at arrival, with the C parser, and split there: its bytes without system_properties, then
these by themselves. To deliver it the broker appends the delivery's own fields to the latter and puts both together
again, so a body is never parsed or encoded a second time.
"""

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from kourou.limits import MAX_BODY_BYTES
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.section import MESSAGE_ROW
from kourou_service.refusal import Refused

MAX_PROPERTIES_BYTES = 64 * 1024
MAX_PROPERTIES = 128
MAX_SYSTEM_PROPERTIES_BYTES = 64 * 1024
MAX_NAME_BYTES = 1024
"""Of a key, a tag, a property's name or a message id."""

_RESERVED_PREFIX = "__"
_RESERVED_PROPERTIES = frozenset(
    [
        "KEYS",
        "TAGS",
        "WAIT",
        "DELAY",
        "RETRY_TOPIC",
        "REAL_TOPIC",
        "REAL_QID",
        "TRAN_MSG",
        "PGROUP",
        "MIN_OFFSET",
        "MAX_OFFSET",
        "BUYER_ID",
        "ORIGIN_MESSAGE_ID",
        "TRANSFER_FLAG",
        "CORRECTION_FLAG",
        "MQ2_FLAG",
        "RECONSUME_TIME",
        "MSG_REGION",
        "TRACE_ON",
        "UNIQ_KEY",
        "MAX_RECONSUME_TIMES",
        "CONSUME_START_TIME",
        "POP_CK",
        "INSTANCE_ID",
        "TIMER_DELIVER_MS",
        "TIMER_DELAY_SEC",
    ]
)
"""Names that RocketMQ keeps for itself: an application that used them could not move back."""
_FIELDS = definition_pb2.SystemProperties.DESCRIPTOR.fields_by_name
_ID, _TAG, _KEYS, _TYPE = _FIELDS["message_id"], _FIELDS["tag"], _FIELDS["keys"], _FIELDS["message_type"]
_ENCODING, _BORN = _FIELDS["body_encoding"], _FIELDS["born_timestamp"]
_ORDINARY = frozenset(
    _FIELDS[name]
    for name in (
        "message_id",
        "tag",
        "keys",
        "message_type",
        "body_encoding",
        "body_digest",
        "born_timestamp",
        "born_host",
        "trace_context",
        "orphaned_transaction_recovery_duration",
    )
)
"""What senders say of any message."""
_OF_TYPE: dict[int, str] = {
    definition_pb2.FIFO: "message_group",
    definition_pb2.DELAY: "delivery_timestamp",
    definition_pb2.LITE: "lite_topic",
    definition_pb2.PRIORITY: "priority",
}
"""What a message of the type must have, and one of another type must not."""
_KNOWN_TYPES = frozenset((*_OF_TYPE, definition_pb2.NORMAL, definition_pb2.TRANSACTION))
_OF_DELIVERY = frozenset(
    _FIELDS[name]
    for name in (
        "receipt_handle",
        "queue_id",
        "queue_offset",
        "invisible_duration",
        "delivery_attempt",
        "store_timestamp",
        "store_host",
        "dead_letter_queue",
    )
)
"""What only the broker says, when it delivers: from a sender it is dropped."""
_ENCODINGS = frozenset((definition_pb2.IDENTITY, definition_pb2.GZIP))
_SYSTEM_PROPERTIES_TAG = b"\x1a"  # field 3 of Message, length-delimited


class Split(NamedTuple):
    """A message as it is stored: its row in the section's table, and its bytes."""

    row: bytes
    body: bytes


NO_TAG = 0
"""Instead of a tag's hash."""


def tag_hash(tag: str) -> int:
    """Never NO_TAG."""
    return zlib.crc32(tag.encode()) or 1


def stored_form(message: definition_pb2.Message, now_ms: int, type_: int = definition_pb2.NORMAL) -> Split:
    """Checks a message for a topic of that type and splits it; it is used up.

    Raises Refused with the API's code for what is wrong with it.
    """
    size = len(message.body)
    if not size:
        raise Refused(definition_pb2.MESSAGE_BODY_EMPTY, "the message body is empty")
    if size > MAX_BODY_BYTES:
        raise Refused(
            definition_pb2.MESSAGE_BODY_TOO_LARGE,
            f"the message body has {size} bytes, at most {MAX_BODY_BYTES} are allowed",
        )
    if message.user_properties:
        _check_properties(message)
    system = message.system_properties
    given: dict[object, Any] = dict(system.ListFields())  # one call: asking for each costs more than the rest
    check_id(given.get(_ID, ""))
    if given.get(_TYPE) != type_:
        _check_type(system, type_)
    if type_ != definition_pb2.NORMAL or not given.keys() <= _ORDINARY:
        _sort_out(system, type_)
    if _KEYS in given:
        check_keys(given[_KEYS])
    hash_ = NO_TAG
    if _TAG in given:
        check_tag(given[_TAG])
        hash_ = tag_hash(given[_TAG])
    if given.get(_ENCODING) not in _ENCODINGS:
        _check_encoding(system)
    if _BORN not in given:
        system.born_timestamp.FromMilliseconds(now_ms)
    tail = system.SerializeToString()
    if len(tail) > MAX_SYSTEM_PROPERTIES_BYTES:
        raise Refused(
            definition_pb2.MESSAGE_PROPERTIES_TOO_LARGE,
            f"the system properties have {len(tail)} bytes, at most {MAX_SYSTEM_PROPERTIES_BYTES} are allowed",
        )
    message.ClearField("system_properties")
    head = message.SerializeToString()
    return Split(MESSAGE_ROW.pack(len(head), len(tail), hash_), head + tail)


def check_id(message_id: str) -> None:
    if not message_id.strip() or len(message_id) > MAX_NAME_BYTES:
        raise Refused(definition_pb2.ILLEGAL_MESSAGE_ID, f"the message id is blank or over {MAX_NAME_BYTES} long")


def check_tag(tag: str) -> None:
    if not tag.strip() or "|" in tag or len(tag) > MAX_NAME_BYTES:
        raise Refused(
            definition_pb2.ILLEGAL_MESSAGE_TAG, f"a tag must not be blank, hold '|' or be over {MAX_NAME_BYTES} long"
        )


def _check_properties(message: definition_pb2.Message) -> None:
    properties = message.user_properties
    if len(properties) > MAX_PROPERTIES:
        raise Refused(
            definition_pb2.MESSAGE_PROPERTIES_TOO_LARGE,
            f"{len(properties)} user properties, at most {MAX_PROPERTIES} are allowed",
        )
    check_property_names(properties)
    size = sum(len(name.encode()) + len(value.encode()) for name, value in properties.items())
    if size > MAX_PROPERTIES_BYTES:
        raise Refused(
            definition_pb2.MESSAGE_PROPERTIES_TOO_LARGE,
            f"the user properties have {size} bytes, at most {MAX_PROPERTIES_BYTES} are allowed",
        )


def check_property_names(names: Iterable[str]) -> None:
    for name in names:
        if not name.strip() or _reserved(name) or len(name) > MAX_NAME_BYTES:
            raise Refused(
                definition_pb2.ILLEGAL_MESSAGE_PROPERTY_KEY,
                f"property name {name[:64]!r} is blank, too long or reserved",
            )


def _reserved(name: str) -> bool:
    return name.startswith(_RESERVED_PREFIX) or name in _RESERVED_PROPERTIES


def check_keys(keys: Sequence[str]) -> None:
    for key in keys:
        if not key.strip() or len(key) > MAX_NAME_BYTES:
            raise Refused(definition_pb2.ILLEGAL_MESSAGE_KEY, f"a message key is blank or over {MAX_NAME_BYTES} long")


def _check_encoding(system: definition_pb2.SystemProperties) -> None:
    if system.body_encoding != definition_pb2.ENCODING_UNSPECIFIED:
        raise Refused(definition_pb2.BAD_REQUEST, f"unknown body encoding {system.body_encoding}")
    system.body_encoding = definition_pb2.IDENTITY


def _check_type(system: definition_pb2.SystemProperties, wanted: int) -> None:
    """Stubs made from the protocol may leave the type out: then it is what the other properties say."""
    type_: int = system.message_type
    if type_ == definition_pb2.MESSAGE_TYPE_UNSPECIFIED:
        fields = {field.name for field, _value in system.ListFields()}
        type_ = next((type_ for type_, field in _OF_TYPE.items() if field in fields), definition_pb2.NORMAL)
    if type_ not in _KNOWN_TYPES:
        raise Refused(definition_pb2.BAD_REQUEST, f"unknown message type {type_}")
    if type_ != wanted:
        raise Refused(
            definition_pb2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE,
            f"the topic takes {type_name(wanted)} messages, and this is a {type_name(type_)} one",
        )
    system.message_type = type_  # type: ignore[assignment]


def _sort_out(system: definition_pb2.SystemProperties, type_: int) -> None:
    """Refuses what belongs to messages of other types, and drops what only the broker says."""
    own = _OF_TYPE.get(type_)
    fields = [field for field, _value in system.ListFields()]
    if own is not None and all(field.name != own for field in fields):
        raise Refused(definition_pb2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE, f"a {type_name(type_)} message needs a {own}")
    for field in fields:
        if field in _ORDINARY or field.name == own:
            continue
        if field not in _OF_DELIVERY:
            raise Refused(
                definition_pb2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE,
                f"a {type_name(type_)} message cannot have a {field.name}",
            )
        system.ClearField(field.name)  # type: ignore[arg-type]


def type_name(type_: int) -> str:
    return definition_pb2.MessageType.Name(type_)  # type: ignore[arg-type]


def join(head: bytes, tail: bytes) -> bytes:
    """The wire form of a Message from its two parts; tail may have had fields appended."""
    return b"".join((head, _SYSTEM_PROPERTIES_TAG, varint(len(tail)), tail))


def digest(head: bytes) -> definition_pb2.Digest:
    """The digest that all clients can check. Most senders give none; made here, for a delivery, it burdens no send."""
    body = definition_pb2.Message.FromString(head).body
    checksum = hashlib.md5(body, usedforsecurity=False).hexdigest().upper()
    return definition_pb2.Digest(type=definition_pb2.MD5, checksum=checksum)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
