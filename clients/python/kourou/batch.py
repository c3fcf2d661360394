"""Messages of one topic and type by columns: what kourou.stream.v1 carries, and brokers store as it came."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import accumulate, chain
from operator import attrgetter
from typing import cast

from google.protobuf.message import DecodeError

from kourou import codecs
from kourou.codecs import Compression
from kourou.errors import CorruptMessage
from kourou.message import HOST, Message, MessageType
from kourou.message_id import message_id_after
from kourou.protocol.kourou.stream.v1 import stream_pb2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)

# One pass in C over all messages for each column, and none for what no message has: so a message costs little.
_BODY = attrgetter("body")
_TAG = attrgetter("tag")
_KEYS = attrgetter("keys")
_PROPERTIES = attrgetter("properties")


@dataclass(frozen=True, slots=True)
class Encoded:
    headers: bytes
    """A BatchHeaders."""
    bodies: bytes


def encode(messages: Sequence[Message], first_id: str, born_ms: int, compression: Compression | None) -> Encoded:
    """Messages of one topic, type, message group, priority and lite topic. They are packed if that makes them
    smaller."""
    bodies = cast("list[bytes]", list(map(_BODY, messages)))
    headers = stream_pb2.BatchHeaders(
        first_message_id=first_id, born_ms=born_ms, born_host=HOST, body_bytes=map(len, bodies)
    )
    _put_tags(headers, cast("list[str | None]", list(map(_TAG, messages))))
    _put_keys(headers, cast("list[Sequence[str]]", list(map(_KEYS, messages))))
    _put_properties(headers, cast("list[dict[str, str]]", list(map(_PROPERTIES, messages))))
    first = messages[0]
    if first.message_group is not None:
        headers.message_group = first.message_group
    elif first.priority is not None:
        headers.priority = first.priority
    elif first.lite_topic is not None:
        headers.lite_topic = first.lite_topic
    elif first.delivery_time is not None:
        times = [message.delivery_time for message in messages if message.delivery_time is not None]
        headers.delivery_ms.extend(-((_EPOCH - time) // _MS) for time in times)  # rounded up: not before its time
    joined = b"".join(bodies)
    if compression is not None:
        packed = codecs.pack(codecs.CODEC_OF[compression], joined)
        if len(packed) < len(joined):
            headers.codec = codecs.CODEC_OF[compression]
            joined = packed
    return Encoded(headers.SerializeToString(), joined)


def _put_tags(headers: stream_pb2.BatchHeaders, tags: list[str | None]) -> None:
    different = dict.fromkeys(tags)
    if different.keys() == {None}:
        return
    names = [tag for tag in different if tag is not None]
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(names, 1)}
    numbers[None] = 0
    headers.tags.extend(names)
    headers.tag_numbers.extend(map(numbers.__getitem__, tags))


def _put_keys(headers: stream_pb2.BatchHeaders, keys: list[Sequence[str]]) -> None:
    if any(keys):
        headers.keys.extend(chain.from_iterable(keys))
        headers.key_counts.extend(map(len, keys))


def _put_properties(headers: stream_pb2.BatchHeaders, properties: list[dict[str, str]]) -> None:
    if any(properties):
        headers.property_names.extend(chain.from_iterable(properties))
        headers.property_values.extend(chain.from_iterable(each.values() for each in properties))
        headers.property_counts.extend(map(len, properties))


class Columns:
    """A batch as it came. What a message has is looked up when it is asked for."""

    def __init__(self, headers: bytes, bodies: bytes) -> None:
        """Raises CorruptMessage when the columns do not fit together. The bodies are unpacked with the first."""
        try:
            self.headers = stream_pb2.BatchHeaders.FromString(headers)
        except DecodeError as error:
            raise CorruptMessage(f"the headers of a batch cannot be read: {error}") from None
        self._packed = bodies
        self.sizes = list(self.headers.body_bytes)
        fault = _fault(self.headers)
        if fault:
            raise CorruptMessage(f"the headers of a batch contradict themselves: {fault}")

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def type(self) -> MessageType:
        headers = self.headers
        if headers.HasField("message_group"):
            return MessageType.FIFO
        if headers.HasField("priority"):
            return MessageType.PRIORITY
        if headers.HasField("lite_topic"):
            return MessageType.LITE
        return MessageType.DELAY if headers.delivery_ms else MessageType.NORMAL

    def message_id(self, index: int) -> str:
        return message_id_after(self.headers.first_message_id, index)

    def body(self, index: int) -> bytes:
        """Raises CorruptMessage."""
        ends = self._ends
        return self._bodies[ends[index] : ends[index + 1]]

    def tag(self, index: int) -> str | None:
        numbers = self.headers.tag_numbers
        number = numbers[index] if numbers else 0
        return self.headers.tags[number - 1] if number else None

    def keys(self, index: int) -> tuple[str, ...]:
        ends = self._key_ends
        return tuple(self.headers.keys[ends[index] : ends[index + 1]]) if ends else ()

    def properties(self, index: int) -> dict[str, str]:
        ends = self._property_ends
        if not ends:
            return {}
        part = slice(ends[index], ends[index + 1])
        return dict(zip(self.headers.property_names[part], self.headers.property_values[part], strict=True))

    def delivery_time(self, index: int) -> datetime | None:
        """Raises CorruptMessage when it is out of range."""
        times = self.headers.delivery_ms
        return time_of_ms(times[index]) if times else None

    @cached_property
    def _bodies(self) -> bytes:
        return codecs.unpack(self.headers.codec, self._packed, sum(self.sizes))

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(self.sizes, initial=0))

    @cached_property
    def _key_ends(self) -> list[int]:
        return _ends_of(self.headers.key_counts)

    @cached_property
    def _property_ends(self) -> list[int]:
        return _ends_of(self.headers.property_counts)


def time_of_ms(ms: int) -> datetime:
    """Since 1970. Raises CorruptMessage when no datetime is so late or early."""
    try:
        return _EPOCH + ms * _MS
    except OverflowError:
        raise CorruptMessage(f"{ms} milliseconds since 1970 are no time") from None


def _ends_of(counts: Iterable[int]) -> list[int]:
    return list(accumulate(counts, initial=0)) if counts else []


def _fault(headers: stream_pb2.BatchHeaders) -> str | None:
    count = len(headers.body_bytes)
    if not count:
        return "no message"
    columns = {
        "tags": headers.tag_numbers,
        "key counts": headers.key_counts,
        "property counts": headers.property_counts,
        "delivery times": headers.delivery_ms,
    }
    for name, column in columns.items():
        if len(column) not in (0, count):
            return f"{count} messages, {len(column)} {name}"
    if headers.tag_numbers and max(headers.tag_numbers) > len(headers.tags):
        return "a tag that is not there"
    if sum(headers.key_counts) != len(headers.keys):
        return f"{len(headers.keys)} keys, and counts of {sum(headers.key_counts)}"
    if not sum(headers.property_counts) == len(headers.property_names) == len(headers.property_values):
        return "names, values and counts of properties that differ"
    try:
        last = int(headers.first_message_id[-8:], 16) + count - 1
    except ValueError:
        return f"{headers.first_message_id!r} does not end in hex digits"
    return None if last < 1 << 32 else "message ids beyond their 8 digits"
