"""A frame: one turn of the broker, sealed under one header. The format is in docs/log-format.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from mmap import mmap
from struct import Struct
from typing import NamedTuple

from kourou_broker.log.checksum import extend, value, value_of_part
from kourou_broker.log.section import SECTION_HEADER, SECTION_HEADER_BYTES, Section

MAGIC = b"KRUf"
FORMAT_VERSION = 1
FLAG_VOID = 1  # the body is void; `durable` holds the crc that the next frame's chain names
MAX_SECTIONS = 0xFFFF
_APART_BYTES = 16 * 1024
"""A payload so long is a piece of its own in a frame: it is written from where it is. Others are joined."""

# magic, crc of all that follows it, version, flags, section count, total length, prev_crc, epoch, position, durable,
# stored_ms
HEADER = Struct("<4sIBBHIIIQQQ")
_UNSUMMED = Struct("<4sI")
_SUMMED = Struct("<BBHIIIQQQ")
UNSUMMED_BYTES = _UNSUMMED.size
HEADER_BYTES = HEADER.size


class FrameHeader(NamedTuple):
    """The fixed head of a frame; `total` is the length of the frame in bytes, head included."""

    crc: int
    version: int
    flags: int
    sections: int
    total: int
    prev_crc: int
    epoch: int
    position: int
    durable: int
    stored_ms: int


@dataclass(slots=True)
class Frame:
    """A frame as read back; it takes the log positions from `position` to before `end`."""

    position: int
    end: int
    epoch: int
    stored_ms: int
    sections: list[Section]


class Sealed(NamedTuple):
    """A frame ready to be written: its head, then the pieces of its body."""

    crc: int
    end: int
    """The log position behind it."""
    head: bytes
    body: list[bytes]
    section_positions: list[int]


def seal(
    sections: Sequence[Section], *, prev_crc: int, epoch: int, position: int, durable: int, stored_ms: int
) -> Sealed:
    """Lay out a frame at a log position."""
    body: list[bytes] = []
    parts: list[bytes] = []
    positions: list[int] = []
    at = position + HEADER_BYTES
    for kind, type_, topic, queue, base, count, payload, _ in sections:
        length = len(payload)
        parts.append(SECTION_HEADER.pack(kind, type_, 0, topic, queue, base, count, length))
        if length < _APART_BYTES:
            parts.append(payload)
        else:
            body += (b"".join(parts), payload)
            parts = []
        positions.append(at)
        at += SECTION_HEADER_BYTES + length
    if parts:
        body.append(b"".join(parts))
    summed = _SUMMED.pack(
        FORMAT_VERSION, 0, len(sections), at - position, prev_crc, epoch, position, durable, stored_ms
    )
    crc = value(summed)
    for piece in body:
        crc = extend(crc, piece)
    return Sealed(crc, at, _UNSUMMED.pack(MAGIC, crc) + summed, body, positions)


def seal_void(total: int, *, chain: int, prev_crc: int, epoch: int, position: int, stored_ms: int) -> bytes:
    """A frame of `total` bytes that holds nothing and hands the chain on to the frame behind it."""
    body = bytes(total - HEADER_BYTES)
    summed = _SUMMED.pack(FORMAT_VERSION, FLAG_VOID, 0, total, prev_crc, epoch, position, chain, stored_ms)
    crc = extend(value(summed), body)
    return _UNSUMMED.pack(MAGIC, crc) + summed + body


def read_header(data: bytes, at: int) -> FrameHeader | None:
    """The frame header at `at`, if there is one and its frame lies within data. Its crc is not yet checked."""
    if data[at : at + 4] != MAGIC or at + HEADER_BYTES > len(data):
        return None
    header = FrameHeader._make(HEADER.unpack_from(data, at)[1:])
    if header.total < HEADER_BYTES or at + header.total > len(data):
        return None
    return header


def crc_matches(data: bytes, at: int, header: FrameHeader) -> bool:
    """Whether the frame at `at` is as it was sealed. The rule is the same in every format version."""
    return value_of_part(data, at + UNSUMMED_BYTES, at + header.total) == header.crc


def read_sections(data: bytes | mmap, at: int, end: int, count: int, position: int) -> list[Section]:
    """So many sections between `at` and `end` of data; `position` is the log position of data's first byte.

    ValueError if they do not fill that range exactly.
    """
    sections: list[Section] = []
    for _ in range(count):
        payload_at = at + SECTION_HEADER_BYTES
        if payload_at > end:
            raise ValueError("a section header passes the end of its frame")
        kind, type_, _, topic, queue, base, entries, length = SECTION_HEADER.unpack_from(data, at)
        section_end = payload_at + length
        payload = data[payload_at:section_end]
        sections.append(Section(kind, type_, topic, queue, base, entries, payload, position + at))
        at = section_end
    if at != end:
        raise ValueError("the sections do not fill their frame")
    return sections
