"""Reads the frames of a segment one after the other and says what is wrong with the first that is not right."""

from collections.abc import Iterator
from dataclasses import dataclass

from kourou_broker.log.errors import NewerFormat
from kourou_broker.log.frame import (
    FORMAT_VERSION,
    HEADER_BYTES,
    MAGIC,
    Frame,
    FrameHeader,
    crc_matches,
    read_header,
    read_sections,
)

_NO_HEADER = bytes(HEADER_BYTES)


@dataclass(slots=True)
class SegmentScan:
    """Iterate over the frames of a segment; afterwards, `end` is the log position where they ended, and why.

    `chain` is the crc of the frame before the segment, None if it is not known, and moves on with each frame.
    `limit` is the log position where the next segment begins.
    `damage` stays None where the rest of the segment is empty or the limit was reached.
    """

    data: bytes
    base: int
    chain: int | None = None
    limit: int | None = None
    end: int = 0
    durable: int = 0
    damage: str | None = None

    def headers(self) -> Iterator[tuple[int, FrameHeader]]:
        """The place within the segment, and the header, of each frame in turn."""
        data, base, at = self.data, self.base, 0
        limit = len(data) if self.limit is None else self.limit - base
        self.end = base
        while at < limit:
            header = read_header(data, at)
            if header is None or not crc_matches(data, at, header):
                self.damage = self._what_is_wrong(at)
                return
            if header.version > FORMAT_VERSION:
                raise NewerFormat(
                    f"the log is of format {header.version} at position {base + at}; this program reads up to format "
                    f"{FORMAT_VERSION}: use a newer Kourou"
                )
            if header.position != base + at:
                self.damage = f"a frame of position {header.position} is in the place of another"
                return
            if self.chain is not None and header.prev_crc != self.chain:
                self.damage = "a frame does not follow the one before it"
                return
            if at + header.total > limit:
                self.damage = "a frame reaches into the next segment"
                return
            self.chain = header.chain
            self.durable = max(self.durable, known_durable(header))
            yield at, header
            at += header.total
            self.end = base + at

    def frames(self) -> Iterator[Frame]:
        """Each frame with its sections."""
        for at, header in self.headers():
            yield Frame(
                header.position,
                header.position + header.total,
                header.epoch,
                header.stored_ms,
                read_sections(self.data, at, header),
            )

    def _what_is_wrong(self, at: int) -> str | None:
        head = self.data[at : at + HEADER_BYTES]
        if head == _NO_HEADER[: len(head)]:
            if self.limit is not None:
                return "there is no frame where one should be"
            return None if is_zero(self.data, at) else "there is something behind the last frame"
        if head[:4] != MAGIC:
            return "there is no frame header where one should begin"
        return "the checksum of a frame is wrong"


def known_durable(header: FrameHeader) -> int:
    """What the frame says is durable."""
    return 0 if header.flags else header.durable


def is_zero(data: bytes, at: int) -> bool:
    """Whether there is nothing but zeros from `at` on."""
    return data.count(0, at) == len(data) - at


def next_frame(data: bytes, base: int, at: int) -> tuple[int, FrameHeader] | None:
    """The first whole frame at `at` or later whose position is its own, whatever lies before it."""
    while (at := data.find(MAGIC, at)) >= 0:
        header = read_header(data, at)
        if header and header.position == base + at and crc_matches(data, at, header):
            return at, header
        at += 1
    return None


def later_durable(data: bytes, base: int, at: int) -> int:
    """The highest position that a whole frame at `at` or later says is durable; 0 if there is none."""
    durable = 0
    while found := next_frame(data, base, at):
        at, header = found
        durable = max(durable, known_durable(header))
        at += header.total
    return durable
