"""A section: what one record, or one run of messages of a queue, is in a frame."""

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

# kind u8, type u8, reserved u16, topic u32, queue u32, base u64, count u32, payload length u32
SECTION_HEADER = Struct("<BBHIIQII")
SECTION_HEADER_BYTES = SECTION_HEADER.size

# One row of the table that a MESSAGES payload begins with: bytes of the message without its system_properties, bytes of
# these, tag hash.
MESSAGE_ROW = Struct("<III")


class SectionKind(IntEnum):
    """The kinds the log itself knows: those that hold messages. What else there is belongs to those above it."""

    MESSAGES = 1
    CARRY = 8
    HELD = 10
    HELD_CARRIED = 11
    BATCH = 18


# Where in a payload a table of messages begins, and behind it the messages: so many bytes, and so many more for each.
_MESSAGES_AT = {
    SectionKind.MESSAGES: (0, 0),
    SectionKind.CARRY: (8, 0),
    SectionKind.HELD: (0, 16),
    SectionKind.HELD_CARRIED: (0, 28),
}
MESSAGE_KINDS = frozenset((*map(int, _MESSAGES_AT), int(SectionKind.BATCH)))
"""The kinds of sections that hold messages, in a queue or not."""
QUEUED_KINDS = frozenset((int(SectionKind.MESSAGES), int(SectionKind.BATCH)))
"""Those whose messages enter a queue."""


class Section(NamedTuple):
    """`count` entries of (topic, queue) from the queue offset `base` on; other kinds use these fields as they like.

    `position` is the log position of the section's header, once it is in a log.
    """

    kind: int
    type: int
    topic: int
    queue: int
    base: int
    count: int  # pyright: ignore[reportIncompatibleMethodOverride] (the tuple's own count is of no use)
    payload: bytes
    position: int = -1


class Entry(NamedTuple):
    """A section with messages in the queue index; `length` is that of the whole section in bytes, header included."""

    base: int
    count: int  # pyright: ignore[reportIncompatibleMethodOverride] (the tuple's own count is of no use)
    position: int
    length: int
    stored_ms: int


def parse_section(data: bytes, at: int, position: int) -> tuple[Section, int]:
    """The section whose header is at `at` in data, and where it ends; ValueError if it does not lie within data."""
    payload_at = at + SECTION_HEADER_BYTES
    if payload_at > len(data):
        raise ValueError("a section header passes the end")
    kind, type_, _, topic, queue, base, count, length = SECTION_HEADER.unpack_from(data, at)
    end = payload_at + length
    if end > len(data):
        raise ValueError("a section passes the end")
    return Section(kind, type_, topic, queue, base, count, data[payload_at:end], position), end


def messages_of(section: Section) -> memoryview:
    """The part of a payload that is a table of messages and the messages; KeyError for a kind that has none."""
    fixed, each = _MESSAGES_AT[SectionKind(section.kind)]
    return memoryview(section.payload)[fixed + each * section.count :]
