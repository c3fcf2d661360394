"""Writing the queue index of a segment, and building it anew from the segment."""

from kourou_broker.log.errors import DamagedLog
from kourou_broker.log.frame import Frame
from kourou_broker.log.index import GrowingIndex, SealedIndex, SegmentSummary, index_blob, read_summary
from kourou_broker.log.medium import Medium, segment_name
from kourou_broker.log.scan import SegmentScan
from kourou_broker.log.section import QUEUED_KINDS, SECTION_HEADER_BYTES

# Blobs that belong to one segment and can be built from it: <prefix>-<base>. They go with it.
DERIVED_PREFIXES = ("queues-", "keys-", "history-")


def enter_sections(index: GrowingIndex, frame: Frame) -> None:
    """Enter the sections of a frame whose messages are in queues."""
    for kind, _, topic, queue, base, count, payload, position in frame.sections:
        if kind in QUEUED_KINDS:
            length = SECTION_HEADER_BYTES + len(payload)
            index.add(topic << 32 | queue, base, count, position, length, frame.stored_ms)


def seal_index(
    medium: Medium, index: GrowingIndex, summary: SegmentSummary, before: int | None, forgotten: frozenset[int]
) -> None:
    """Write the index of a segment that is durable; `before` is the segment before it, whose index must be there."""
    ends = {} if before is None else open_index(medium, before).ends()
    ends.update(index.ends())
    for key in [key for key in ends if key >> 32 in forgotten]:
        del ends[key]
    medium.write_blob(index_blob(summary.base), index.seal(summary, ends))


def open_index(medium: Medium, base: int) -> SealedIndex:
    """The sealed index of a segment, built again if it is missing or damaged."""
    try:
        return SealedIndex(medium.view_blob(index_blob(base)))
    except (ValueError, FileNotFoundError):
        _rebuild(medium, base)
        return SealedIndex(medium.view_blob(index_blob(base)))


def read_sealed(medium: Medium, base: int, following: int | None) -> SegmentSummary | None:
    """What the sealed index says of its segment, behind which another one begins at `following`.

    None if there is none, or it is damaged. A segment whose index is sealed was wholly durable.
    """
    try:
        summary = read_summary(medium.view_blob(index_blob(base)))
    except (ValueError, FileNotFoundError):
        return None
    return summary if summary.base == base and summary.end == following else None


def drop_derived(medium: Medium, base: int) -> None:
    """Delete what was derived from a segment."""
    for prefix in DERIVED_PREFIXES:
        medium.drop_blob(f"{prefix}{base:016x}")


def _rebuild(medium: Medium, base: int) -> None:
    files = medium.segments()
    number = next(number for number, file in enumerate(files) if file.base == base)
    scan = SegmentScan(medium.read(base, 0, files[number].size_bytes), base, limit=files[number + 1].base)
    index = GrowingIndex(base)
    first_ms = last_ms = 0
    for frame in scan.frames():
        enter_sections(index, frame)
        first_ms = first_ms or frame.stored_ms
        last_ms = max(last_ms, frame.stored_ms)
    if scan.damage or scan.chain is None:
        raise DamagedLog(segment_name(base), scan.end, scan.damage or "the segment is empty", medium.name)
    before = files[number - 1].base if number else None
    seal_index(medium, index, SegmentSummary(base, scan.end, scan.chain, first_ms, last_ms), before, frozenset())
