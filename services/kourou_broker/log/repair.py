"""Repair by hand of a log that refuses to start: see what is damaged, then skip it or cut there.

    skip    each damaged range becomes one void frame; all whole frames before and behind it stay
    cut     the log ends at the first damage; all behind it goes

The bytes that are overwritten or dropped are kept first, in blobs named damaged-<position>.
"""

from dataclasses import dataclass, field
from typing import Literal

from kourou_broker.log.errors import LogError
from kourou_broker.log.frame import HEADER_BYTES, FrameHeader, seal_void
from kourou_broker.log.medium import Medium, SegmentFile, segment_name
from kourou_broker.log.options import MIB
from kourou_broker.log.scan import SegmentScan, next_frame
from kourou_broker.log.sealing import drop_derived, read_sealed


@dataclass(frozen=True, slots=True)
class Damage:
    """No whole frame was found from `position` to before `end`; the frame at `end` names `chain` as the one before it.

    `before` is the chain that the frame at `position` should have named.
    """

    segment: str
    position: int
    end: int
    what: str
    before: int
    chain: int


@dataclass(slots=True)
class Report:
    """What is in a log: whole frames, damaged ranges between them, and where the whole frames end.

    `tail` says what lies behind the end, if anything does: that is cut at the next start, unless it was durable.
    """

    first: int
    end: int
    segments: int
    frames: int = 0
    durable: int = 0
    damages: list[Damage] = field(default_factory=list[Damage])
    tail: str | None = None

    @property
    def healthy(self) -> bool:
        """Whether the log will start as it is."""
        return not self.damages and self.end >= self.durable


def inspect(medium: Medium) -> Report:
    """Look at all of the log; nothing is changed. Raises NewerFormat, OSError."""
    files = medium.segments()
    first = files[0].base if files else 0
    report = Report(first, first, len(files))
    chain: int | None = None
    # Where the scan stopped, why, and the chain there.
    open_damage: tuple[int, str, int] | None = None
    for number, file in enumerate(files):
        data = medium.read(file.base, 0, file.size_bytes)
        limit = files[number + 1].base if number + 1 < len(files) else None
        summary = read_sealed(medium, file.base, limit)
        report.durable = max(report.durable, summary.end if summary else 0)
        at = 0
        while True:
            if open_damage:
                found = next_frame(data, file.base, at)
                if found is None:
                    break
                at, header = found
                _close(report, files, open_damage, header)
                open_damage, chain = None, None
            scan = SegmentScan(data[at:], file.base + at, chain, limit)
            report.frames += sum(1 for _ in scan.frames())
            chain, report.end = scan.chain, scan.end
            report.durable = max(report.durable, scan.durable)
            if not scan.damage:
                break
            open_damage = (scan.end, scan.damage, scan.chain or 0)
            # A whole frame in the wrong place or order is not the next whole frame.
            at = scan.end - file.base + 1
    if open_damage:
        report.tail = open_damage[1]
    return report


def repair(medium: Medium, mode: Literal["skip", "cut"]) -> Report:
    """Repair all that `inspect` finds, after keeping what is overwritten; what it found. Raises LogError, OSError."""
    report = inspect(medium)
    if mode == "skip":
        for damage in report.damages:
            _skip(medium, damage)
        if report.durable > report.end:
            # Nothing whole follows that could be saved.
            _cut(medium, report.end)
    elif not report.healthy:
        _cut(medium, report.damages[0].position if report.damages else report.end)
    return report


def scrub(medium: Medium, base: int) -> str | None:
    """Verify one sealed segment; what is wrong with it, if anything is."""
    files = medium.segments()
    number = next((number for number, file in enumerate(files) if file.base == base), None)
    if number is None or number + 1 == len(files):
        return None
    scan = SegmentScan(medium.read(base, 0, files[number].size_bytes), base, limit=files[number + 1].base)
    for _ in scan.frames():
        pass
    return f"segment {segment_name(base)}, position {scan.end}: {scan.damage}" if scan.damage else None


def _close(report: Report, files: list[SegmentFile], damage: tuple[int, str, int], header: FrameHeader) -> None:
    position, what, before = damage
    base = max(file.base for file in files if file.base <= position)
    report.damages.append(Damage(segment_name(base), position, header.position, what, before, header.prev_crc))


def _skip(medium: Medium, damage: Damage) -> None:
    """Put void frames over the damaged range: one in each segment that it touches."""
    position, before = damage.position, damage.before
    while position < damage.end:
        files = medium.segments()
        number = max(number for number, file in enumerate(files) if file.base <= position)
        base, size = files[number]
        limit = files[number + 1].base if number + 1 < len(files) else damage.end
        end = min(limit, damage.end)
        if end - position < HEADER_BYTES:
            raise LogError(f"{end - position} bytes at position {position} are too few for a frame: cut there instead")
        if end > base + size:
            # A segment is missing: one is made that holds nothing but the void frame.
            size = end - position
            medium.prepare(size)
            medium.create(position, size)
            base = position
        _keep(medium, base, position - base, end - position)
        last = end == damage.end
        void = seal_void(
            end - position,
            chain=damage.chain if last else 0,
            prev_crc=before,
            epoch=0,
            position=position,
            stored_ms=0,
        )
        medium.write(base, position - base, [void])
        medium.sync(base)
        drop_derived(medium, base)
        position, before = end, 0


def _cut(medium: Medium, position: int) -> None:
    files = medium.segments()
    for base, size in reversed(files):
        if base > position or (base == position and base != files[0].base):
            _keep(medium, base, 0, size)
            medium.drop(base)
            drop_derived(medium, base)
        elif base + size > position:
            _keep(medium, base, position - base, base + size - position)
            for at in range(position - base, size, MIB):
                medium.write(base, at, [bytes(min(MIB, size - at))])
            medium.sync(base)
            drop_derived(medium, base)


def _keep(medium: Medium, base: int, offset: int, size_bytes: int) -> None:
    data = medium.read(base, offset, size_bytes).rstrip(b"\0")
    if data:
        medium.write_blob(f"damaged-{base + offset:016x}", data)
