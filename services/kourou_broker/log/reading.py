"""Reading segments of a medium from beside the log, as those do who only look on."""

from kourou_broker.log.medium import Medium, SegmentFile
from kourou_broker.log.scan import SegmentScan
from kourou_broker.log.section import SECTION_HEADER_BYTES, Section, parse_section


def segments(medium: Medium) -> list[tuple[SegmentFile, int | None]]:
    """Each segment, and where the next one begins; the last one is written to, and has none behind it."""
    files = medium.segments()
    following: list[int | None] = [file.base for file in files[1:]]
    return list(zip(files, [*following, None], strict=True)) if files else []


def scan_segment(medium: Medium, file: SegmentFile, following: int | None) -> SegmentScan:
    """To iterate over its frames. FileNotFoundError if it was dropped meanwhile."""
    return SegmentScan(medium.view(file.base), file.base, limit=following)


def scan_on(medium: Medium, file: SegmentFile, position: int) -> SegmentScan:
    """The same for what the last segment holds from that position on, where a frame begins or none is yet."""
    offset = position - file.base
    return SegmentScan(medium.read(file.base, offset, file.size_bytes - offset), position)


def read_section(medium: Medium, base: int, position: int) -> Section:
    """The section at that log position, in the segment at `base`. ValueError if none is there any more."""
    offset = position - base
    head = medium.read(base, offset, SECTION_HEADER_BYTES)
    if len(head) < SECTION_HEADER_BYTES:
        raise ValueError("a section header passes the end")
    length = SECTION_HEADER_BYTES + int.from_bytes(head[-4:], "little")
    return parse_section(medium.read(base, offset, length), 0, position)[0]
