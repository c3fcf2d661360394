"""A batch: messages of one topic as a client of the stream door sent them, headers by columns and bodies apart.

The payload of a BATCH section: bytes of the topic's name and of the headers (u32 each), a Resource, a BatchHeaders, and
the bodies, packed as the headers say. Nothing of it was changed, so it can be delivered as it is; to everybody else a
message of it is made up when it is asked for.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from struct import Struct

from kourou.codecs import unpack
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.stream.v1 import stream_pb2

ID_DIGITS = 8
"""Of a message id, those at its end that count up within a batch."""
_HEAD = Struct("<II")


def pack(topic: definition_pb2.Resource, headers: bytes, bodies: bytes) -> bytes:
    """The payload of a section."""
    name = topic.SerializeToString()
    return b"".join((_HEAD.pack(len(name), len(headers)), name, headers, bodies))


class Batch:
    """A payload taken apart, as far as it is asked for. It was checked when it was stored."""

    def __init__(self, payload: bytes) -> None:
        name_bytes, header_bytes = _HEAD.unpack_from(payload)
        headers_at = _HEAD.size + name_bytes
        self._payload = payload
        self._headers_at, self._bodies_at = headers_at, headers_at + header_bytes

    @property
    def raw_headers(self) -> bytes:
        return self._payload[self._headers_at : self._bodies_at]

    @property
    def raw_bodies(self) -> bytes:
        return self._payload[self._bodies_at :]

    @property
    def bodies_view(self) -> memoryview:
        """The same, not copied."""
        return memoryview(self._payload)[self._bodies_at :]

    @property
    def packed_bytes(self) -> int:
        """Of all bodies, as they are stored."""
        return len(self._payload) - self._bodies_at

    @cached_property
    def headers(self) -> stream_pb2.BatchHeaders:
        return stream_pb2.BatchHeaders.FromString(self.raw_headers)

    @cached_property
    def bodies(self) -> bytes:
        """Unpacked."""
        return unpack(self.headers.codec, self.raw_bodies, self._ends[-1])

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
        return index if 0 <= index < len(self.headers.body_bytes) and self.message_id(index) == message_id else None

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
        message = definition_pb2.Message(body=self.bodies[ends[index] : ends[index + 1]])
        message.topic.ParseFromString(self._payload[_HEAD.size : self._headers_at])
        if self._property_ends:
            start, end = self._property_ends[index : index + 2]
            headers = self.headers
            message.user_properties.update(
                zip(headers.property_names[start:end], headers.property_values[start:end], strict=True)
            )
        return message

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(self.headers.body_bytes, initial=0))

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
