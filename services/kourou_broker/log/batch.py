"""A batch: messages of one topic as a client of the stream door sent them, headers by columns and bodies apart.

The payload of a BATCH section is the `kourou.stream.v1.PublishRequest` as it came: nothing of it is copied on its way
to the disk, and headers and bodies can be delivered as they are. To everybody else a message of it is made up when it
is asked for.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from kourou.codecs import Bytes, unpack
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.stream.v1 import stream_pb2

ID_DIGITS = 8
"""Of a message id, those at its end that count up within a batch."""
_NUMBER, _TOPIC, _TYPE, _HEADERS, _BODIES = 0x08, 0x12, 0x18, 0x22, 0x2A
"""The fields of a PublishRequest, as they begin."""
_SIGN = 1 << 31
_MAX_NUMBER = (1 << 64) - 1


class _Fields(NamedTuple):
    """What a PublishRequest holds; slices of its bytes."""

    number: int
    topic: slice
    type: int
    headers: slice
    bodies: slice


class Batch:
    """A request taken apart, as far as it is asked for."""

    def __init__(self, request: bytes) -> None:
        """Raises DecodeError when it is no PublishRequest; whether its headers are such is seen when they are read."""
        fields = _find(request)
        if fields is None:  # it came in another form than encoders give it
            parsed = stream_pb2.PublishRequest.FromString(request)
            parsed.DiscardUnknownFields()
            request = parsed.SerializeToString()
            fields = _find(request)
            assert fields is not None
        self.payload = request
        self.number = fields.number
        self.type = fields.type
        self._fields = fields

    @cached_property
    def topic(self) -> definition_pb2.Resource:
        return definition_pb2.Resource.FromString(self.payload[self._fields.topic])

    @property
    def raw_headers(self) -> bytes:
        return self.payload[self._fields.headers]

    @property
    def raw_bodies(self) -> memoryview:
        return memoryview(self.payload)[self._fields.bodies]

    @property
    def packed_bytes(self) -> int:
        """Of all bodies, as they are stored."""
        return self._fields.bodies.stop - self._fields.bodies.start

    @cached_property
    def headers(self) -> stream_pb2.BatchHeaders:
        """Raises DecodeError, unless it was stored."""
        return stream_pb2.BatchHeaders.FromString(self.raw_headers)

    @cached_property
    def body_bytes(self) -> Sequence[int]:
        """Of each message; each pass over protobuf's own takes four times as long."""
        return list(self.headers.body_bytes)

    @cached_property
    def bodies(self) -> Bytes:
        """Unpacked. Raises CorruptMessage, unless it was stored."""
        return unpack(self.headers.codec, self.raw_bodies, sum(self.body_bytes))

    def tag(self, index: int) -> str | None:
        numbers = self._tag_numbers
        return self._tags[numbers[index] - 1] if numbers and numbers[index] else None

    def keys(self, index: int) -> Sequence[str]:
        ends = self._key_ends
        return self._keys[ends[index] : ends[index + 1]] if ends else ()

    def message_id(self, index: int) -> str:
        first = self.headers.first_message_id
        return f"{first[:-ID_DIGITS]}{int(first[-ID_DIGITS:], 16) + index:0{ID_DIGITS}X}"

    def index_of(self, message_id: str) -> int | None:
        """Which of its messages has that id."""
        first = self.headers.first_message_id
        if len(message_id) != len(first) or message_id[:-ID_DIGITS] != first[:-ID_DIGITS]:
            return None
        try:
            index = int(message_id[-ID_DIGITS:], 16) - int(first[-ID_DIGITS:], 16)
        except ValueError:
            return None
        return index if 0 <= index < len(self.body_bytes) and self.message_id(index) == message_id else None

    def properties(self, index: int, type_: int = definition_pb2.NORMAL) -> definition_pb2.SystemProperties:
        """Of one message, as its sender would have said it in apache.rocketmq.v2."""
        headers = self.headers
        made = definition_pb2.SystemProperties(
            tag=self.tag(index),
            keys=self.keys(index),
            message_id=self.message_id(index),
            body_encoding=definition_pb2.IDENTITY,
            message_type=type_,  # type: ignore[arg-type]
            born_host=headers.born_host,
            trace_context=(headers.trace_contexts[index] or None) if headers.trace_contexts else None,
        )
        made.born_timestamp.FromMilliseconds(headers.born_ms)
        return made

    def message(self, index: int) -> definition_pb2.Message:
        """One message without its system properties."""
        ends = self._ends
        message = definition_pb2.Message(body=bytes(self.bodies[ends[index] : ends[index + 1]]))
        message.topic.CopyFrom(self.topic)
        if self._property_ends:
            start, end = self._property_ends[index : index + 2]
            headers = self.headers
            message.user_properties.update(
                zip(headers.property_names[start:end], headers.property_values[start:end], strict=True)
            )
        return message

    def part(self, first: int, count: int) -> tuple[bytes, memoryview]:
        """Neighbours of a stored batch as one of their own, not packed. -> its headers, its bodies."""
        end = first + count
        headers = self.headers
        made = stream_pb2.BatchHeaders(
            first_message_id=self.message_id(first),
            born_ms=headers.born_ms,
            born_host=headers.born_host,
            body_bytes=self.body_bytes[first:end],
            trace_contexts=headers.trace_contexts[first:end],
        )
        if numbers := self._tag_numbers[first:end]:
            used = sorted({*numbers} - {0})
            renumbered = {0: 0, **{old: new for new, old in enumerate(used, 1)}}
            made.tags.extend(self._tags[number - 1] for number in used)
            made.tag_numbers.extend(map(renumbered.__getitem__, numbers))
        if ends := self._key_ends:
            made.keys.extend(self._keys[ends[first] : ends[end]])
            made.key_counts.extend(headers.key_counts[first:end])
        if ends := self._property_ends:
            made.property_names.extend(headers.property_names[ends[first] : ends[end]])
            made.property_values.extend(headers.property_values[ends[first] : ends[end]])
            made.property_counts.extend(headers.property_counts[first:end])
        return made.SerializeToString(), memoryview(self.bodies)[self._ends[first] : self._ends[end]]

    def parts(self, first: int, count: int, max_bytes: int) -> Iterator[range]:
        """Cuts neighbours into pieces whose bodies have so many bytes at most, when there are several in one."""
        ends, stop = self._ends, first + count
        while first < stop:
            end = bisect_right(ends, ends[first] + max_bytes) - 1
            end = min(max(end, first + 1), stop)
            yield range(first, end)
            first = end

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(self.body_bytes, initial=0))

    @cached_property
    def _tags(self) -> Sequence[str]:
        return list(self.headers.tags)

    @cached_property
    def _tag_numbers(self) -> Sequence[int]:
        return list(self.headers.tag_numbers)

    @cached_property
    def _keys(self) -> Sequence[str]:
        return list(self.headers.keys)

    @cached_property
    def _key_ends(self) -> Sequence[int]:
        counts = self.headers.key_counts
        return list(accumulate(counts, initial=0)) if counts else ()

    @cached_property
    def _property_ends(self) -> Sequence[int]:
        counts = self.headers.property_counts
        return list(accumulate(counts, initial=0)) if counts else ()


def _find(request: bytes) -> _Fields | None:
    """Where the fields of a PublishRequest are; None unless each is there at most once and in order, and no other."""
    numbers = {_NUMBER: 0, _TYPE: 0}
    pieces = {_TOPIC: slice(0, 0), _HEADERS: slice(0, 0), _BODIES: slice(0, 0)}
    at = last = 0
    try:
        while at < len(request):
            field = request[at]
            if field <= last:
                return None
            last = field
            value, at = _varint(request, at + 1)
            if field in numbers:
                numbers[field] = value
            elif field in pieces:
                pieces[field] = slice(at, at + value)
                at += value
            else:
                return None
    except IndexError:
        return None
    if at > len(request):
        return None
    type_ = (numbers[_TYPE] + _SIGN & 2 * _SIGN - 1) - _SIGN  # of 32 bits, as all enums
    return _Fields(numbers[_NUMBER], pieces[_TOPIC], type_, pieces[_HEADERS], pieces[_BODIES])


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, and where it ends. IndexError when there is none."""
    value = shift = 0
    while shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MAX_NUMBER, at
        shift += 7
    raise IndexError(at)
