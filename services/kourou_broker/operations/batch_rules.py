"""What a legal batch is, and its messages in the form of all others.

A batch of ordinary messages is checked as a whole: what is looked at for each message is looked at by C.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from google.protobuf.message import DecodeError

from kourou.codecs import MAX_UNPACKED_BYTES
from kourou.errors import CorruptMessage
from kourou.limits import MAX_BODY_BYTES
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.stream.v1 import stream_pb2
from kourou_broker.log.batch import ID_DIGITS, Batch
from kourou_broker.operations.message import (
    MAX_NAME_BYTES,
    MAX_PROPERTIES,
    MAX_PROPERTIES_BYTES,
    MAX_SYSTEM_PROPERTIES_BYTES,
    check_id,
    check_keys,
    check_property_names,
    check_tag,
)
from kourou_service.refusal import Refused

MAX_MESSAGES = 4096
"""Of one request, through either door."""
_UPPER_HEX = frozenset("0123456789ABCDEF")


def check_batch(batch: Batch) -> None:
    """Raises Refused with the API's code for what is wrong with a batch."""
    try:
        headers = batch.headers
    except DecodeError:
        raise Refused(definition_pb2.BAD_REQUEST, "the headers are no kourou.stream.v1.BatchHeaders") from None
    count = len(headers.body_bytes)
    if not count:
        raise Refused(definition_pb2.BAD_REQUEST, "the batch holds no message")
    if count > MAX_MESSAGES:
        raise Refused(definition_pb2.PAYLOAD_TOO_LARGE, f"{count} messages in one batch, at most {MAX_MESSAGES} may be")
    _check_ids(headers.first_message_id, count)
    _check_bodies(batch)
    if len(headers.born_host) > MAX_NAME_BYTES:
        raise Refused(definition_pb2.BAD_REQUEST, f"the born host is over {MAX_NAME_BYTES} long")
    if headers.tags or headers.tag_numbers:
        _check_tags(headers, count)
    if headers.keys or headers.key_counts:
        _check_column("keys", len(headers.keys), headers.key_counts, count)
        check_keys(headers.keys)
        _check_sizes(headers)
    if headers.property_names or headers.property_values or headers.property_counts:
        _check_properties(headers, count)
    if headers.trace_contexts:
        _check_length("trace contexts", headers.trace_contexts, count)
        if max(map(len, headers.trace_contexts)) > MAX_NAME_BYTES:
            raise Refused(definition_pb2.BAD_REQUEST, f"a trace context is over {MAX_NAME_BYTES} long")


def check_ordinary(headers: stream_pb2.BatchHeaders) -> None:
    """Raises Refused if something is said that belongs to messages of another type."""
    given = [name for name in ("message_group", "priority", "lite_topic") if headers.HasField(name)]
    if headers.delivery_ms:
        given.append("delivery_ms")
    if given:
        raise Refused(
            definition_pb2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE, f"a NORMAL message must not have a {given[0]}"
        )


def messages_of(batch: Batch) -> list[definition_pb2.Message]:
    """The messages of a checked batch, one by one, as their sender would have sent them in apache.rocketmq.v2."""
    headers = batch.headers
    count = len(batch.body_bytes)
    if headers.delivery_ms:
        _check_length("delivery times", headers.delivery_ms, count)
    messages: list[definition_pb2.Message] = []
    for index in range(count):
        message = batch.message(index)
        system = batch.properties(index, batch.type)
        if headers.HasField("message_group"):
            system.message_group = headers.message_group
        if headers.HasField("priority"):
            system.priority = headers.priority
        if headers.HasField("lite_topic"):
            system.lite_topic = headers.lite_topic
        if headers.delivery_ms:
            system.delivery_timestamp.FromMilliseconds(_representable(headers.delivery_ms[index]))
        message.system_properties.CopyFrom(system)
        messages.append(message)
    return messages


def _check_ids(first: str, count: int) -> None:
    check_id(first)
    digits = first[-ID_DIGITS:]
    if len(digits) < ID_DIGITS or not _UPPER_HEX.issuperset(digits) or int(digits, 16) + count > 1 << 4 * ID_DIGITS:
        raise Refused(
            definition_pb2.ILLEGAL_MESSAGE_ID,
            f"the message id {first[:64]!r} does not end in {ID_DIGITS} upper-case hex digits to count {count} up",
        )


def _check_bodies(batch: Batch) -> None:
    sizes = batch.body_bytes
    if not min(sizes):
        raise Refused(definition_pb2.MESSAGE_BODY_EMPTY, "a message body is empty")
    if max(sizes) > MAX_BODY_BYTES:
        raise Refused(
            definition_pb2.MESSAGE_BODY_TOO_LARGE,
            f"a message body has {max(sizes)} bytes, at most {MAX_BODY_BYTES} are allowed",
        )
    total = sum(sizes)
    if total > MAX_UNPACKED_BYTES:
        raise Refused(
            definition_pb2.PAYLOAD_TOO_LARGE,
            f"the bodies have {total} bytes when unpacked, at most {MAX_UNPACKED_BYTES} may be in a batch",
        )
    try:
        _ = batch.bodies  # so that whoever cannot unpack it gets it unpacked
    except CorruptMessage as problem:
        raise Refused(definition_pb2.BAD_REQUEST, str(problem)) from None


def _check_tags(headers: stream_pb2.BatchHeaders, count: int) -> None:
    _check_length("tag numbers", headers.tag_numbers, count)
    if len(headers.tags) > count or max(headers.tag_numbers) > len(headers.tags):
        raise Refused(
            definition_pb2.BAD_REQUEST, "a tag number is beyond the tags, or there are more tags than messages"
        )
    for tag in headers.tags:
        check_tag(tag)


def _check_properties(headers: stream_pb2.BatchHeaders, count: int) -> None:
    names, values, counts = headers.property_names, headers.property_values, headers.property_counts
    _check_column("properties", len(names), counts, count)
    _check_length("property values", values, len(names))
    if max(counts) > MAX_PROPERTIES:
        raise Refused(
            definition_pb2.MESSAGE_PROPERTIES_TOO_LARGE,
            f"{max(counts)} user properties, at most {MAX_PROPERTIES} are allowed",
        )
    check_property_names({*names})
    ends = list(accumulate(counts, initial=0))
    if headers.ByteSize() <= MAX_PROPERTIES_BYTES:
        return
    sizes = list(accumulate((len(n.encode()) + len(v.encode()) for n, v in zip(names, values, strict=True)), initial=0))
    if max(sizes[end] - sizes[start] for start, end in pairwise(ends)) > MAX_PROPERTIES_BYTES:
        raise Refused(
            definition_pb2.MESSAGE_PROPERTIES_TOO_LARGE,
            f"the user properties of a message are over {MAX_PROPERTIES_BYTES} bytes",
        )


def _check_sizes(headers: stream_pb2.BatchHeaders) -> None:
    """What else a message has is small."""
    if headers.ByteSize() <= MAX_SYSTEM_PROPERTIES_BYTES:
        return
    ends = list(accumulate(headers.key_counts, initial=0))
    sizes = list(accumulate((len(key.encode()) for key in headers.keys), initial=0))
    if max(sizes[end] - sizes[start] for start, end in pairwise(ends)) > MAX_SYSTEM_PROPERTIES_BYTES - 8192:
        raise Refused(definition_pb2.MESSAGE_PROPERTIES_TOO_LARGE, "the keys of a message are too many or too long")


def _check_column(what: str, entries: int, counts: Sequence[int], count: int) -> None:
    _check_length(f"numbers of {what}", counts, count)
    if sum(counts) != entries:
        raise Refused(definition_pb2.BAD_REQUEST, f"{entries} {what}, where the messages have {sum(counts)}")


def _check_length(what: str, column: Sequence[object], count: int) -> None:
    if len(column) != count:
        raise Refused(definition_pb2.BAD_REQUEST, f"{len(column)} {what}, where {count} should be")


def _representable(time_ms: int) -> int:
    """Raises Refused for a time that has no timestamp."""
    if not 0 <= time_ms < 253_402_300_800_000:
        raise Refused(definition_pb2.ILLEGAL_DELIVERY_TIME, f"the delivery time {time_ms} ms is out of range")
    return time_ms
