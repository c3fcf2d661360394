"""Message ids and keys of one segment, as a derived blob: sorted hashes, and where each message is.

A head, then 64-bit words in the machine's own order: n hashes ascending, then n places, each the offset of the section
within its segment << 32 | the message's number in the section. A hash may mislead: the reader compares the message.

The ids of a batch count up, so it is entered once for each block of 256 ids that it touches, and not for each message.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from struct import Struct
from typing import NamedTuple

from kourou.protocol.apache.rocketmq.v2.definition_pb2 import SystemProperties
from kourou_broker.log.batch import ID_DIGITS, Batch
from kourou_broker.log.checksum import value, value_of_part
from kourou_broker.log.section import MESSAGE_ROW, Section, SectionKind, messages_of

_MAGIC = b"KRUk"
_VERSION = 3  # 1 knew only the messages of queues, 2 no batches
# magic, version, crc of the words, rows, base of the segment
_HEAD = Struct("=4sIIIQ")
_LOW = 0xFFFFFFFF
_WORD = (1 << 64) - 1
_BLOCK_DIGITS = 2
"""Hex digits at the end of an id that ids of one block do not share."""


class Place(NamedTuple):
    """A message: the log position of its section, and which of the section's messages it is."""

    position: int
    index: int  # pyright: ignore[reportIncompatibleMethodOverride] (the tuple's own index is of no use)


def id_hashes(topic: int, message_id: str) -> tuple[int, int]:
    """What a message id is found by: as a single message's, and as one of a batch."""
    return (
        _hash(_prefix(b"i", topic), message_id),
        _hash(_prefix(b"b", topic), message_id[:-_BLOCK_DIGITS]),
    )


def key_hash(topic: int, key: str) -> int:
    """What a key is found by."""
    return _hash(_prefix(b"k", topic), key)


def index_of_id(section: Section, message_id: str, index: int) -> int | None:
    """Which message of a section has the id, if the one at the index has, or one of the batch."""
    if section.kind == SectionKind.BATCH:
        return Batch(section.payload).index_of(message_id)
    properties = next(islice(read_properties(section), index, None), None)
    return index if properties is not None and properties.message_id == message_id else None


def has_key(section: Section, key: str, index: int) -> bool:
    """Whether the message at the index of a section has the key."""
    if section.kind == SectionKind.BATCH:
        return key in Batch(section.payload).keys(index)
    properties = next(islice(read_properties(section), index, None), None)
    return properties is not None and key in properties.keys


def read_properties(section: Section) -> Iterator[SystemProperties]:
    """The system properties of each message of a section with a table of messages."""
    payload = messages_of(section)
    at = section.count * MESSAGE_ROW.size
    for head_length, properties_length, _ in MESSAGE_ROW.iter_unpack(payload[:at]):
        at += head_length + properties_length
        yield SystemProperties.FromString(bytes(payload[at - properties_length : at]))


def hashes(section: Section) -> Iterator[tuple[int, int]]:
    """Of each id and key in a section that holds messages: its hash, and the number of the message."""
    if section.kind == SectionKind.BATCH:
        yield from _batch_hashes(section)
        return
    id_prefix, key_prefix = _prefix(b"i", section.topic), _prefix(b"k", section.topic)
    for index, properties in enumerate(read_properties(section)):
        yield _hash(id_prefix, properties.message_id), index
        for key in properties.keys:
            yield _hash(key_prefix, key), index


def _batch_hashes(section: Section) -> Iterator[tuple[int, int]]:
    batch = Batch(section.payload)
    id_prefix, key_prefix = _prefix(b"b", section.topic), _prefix(b"k", section.topic)
    first, last = (batch.message_id(index)[:-_BLOCK_DIGITS] for index in (0, section.count - 1))
    shared, digits = first[: _BLOCK_DIGITS - ID_DIGITS], ID_DIGITS - _BLOCK_DIGITS
    for block in range(int(first[-digits:], 16), int(last[-digits:], 16) + 1):
        yield _hash(id_prefix, f"{shared}{block:0{digits}X}"), 0
    if batch.headers.keys:
        for index in range(section.count):
            for key in batch.keys(index):
                yield _hash(key_prefix, key), index


class GrowingKeys:
    """The key index of the segment at `base` while its sections are read."""

    def __init__(self, base: int) -> None:
        self._base = base
        self._rows: list[int] = []
        """hash << 64 | place: so they are sorted in a third of the time that pairs take."""

    def add(self, section: Section) -> None:
        """Enter a section that holds messages."""
        at = (section.position - self._base) << 32
        self._rows += [hash_ << 64 | at | index for hash_, index in hashes(section)]

    def seal(self) -> bytes:
        """The blob."""
        rows = self._rows
        rows.sort()
        words = array("Q", [row >> 64 for row in rows])
        words.extend([row & _WORD for row in rows])
        data = words.tobytes()
        return _HEAD.pack(_MAGIC, _VERSION, value(data), len(rows), self._base) + data


class KeyIndex:
    """A key index as read back. ValueError if it is not that of the segment, or not whole."""

    def __init__(self, view: memoryview, base: int) -> None:
        if len(view) < _HEAD.size:
            raise ValueError("the key index is too short")
        magic, version, crc, rows, of_base = _HEAD.unpack_from(view)
        words = view[_HEAD.size :]
        whole = (magic, version, of_base, len(words)) == (_MAGIC, _VERSION, base, 16 * rows)
        if not whole or value_of_part(words) != crc:
            raise ValueError("the key index is damaged or of another version")
        self._base = base
        self._hashes = words[: 8 * rows].cast("Q")
        self._places = words[8 * rows :].cast("Q")

    def places(self, hash_: int) -> list[Place]:
        """Where messages of that hash are, in the order of the log."""
        row = bisect_left(self._hashes, hash_)
        found: list[Place] = []
        while row < len(self._hashes) and self._hashes[row] == hash_:
            place = self._places[row]
            found.append(Place(self._base + (place >> 32), place & _LOW))
            row += 1
        return found


def key_index_blob(base: int) -> str:
    """The name of the blob with the key index of that segment."""
    return f"keys-{base:016x}"


def _prefix(kind: bytes, topic: int) -> bytes:
    return kind + topic.to_bytes(4, "little")


def _hash(prefix: bytes, text: str) -> int:
    return int.from_bytes(blake2b(prefix + text.encode(), digest_size=8).digest(), "little")
