"""What is done at start-up: verify, cut a torn tail, refuse damage in the middle, hand the frames to the fold.

Frames above the last known durable position may be anything after a crash: unsynced pages reach the disk in any order.
So at the first thing that is no frame we look past it: if a later whole frame says that this place was durable, it is
damage; else it is the torn tail, and cut.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

from kourou_broker.log.errors import DamagedLog, MissingLog
from kourou_broker.log.frame import Frame
from kourou_broker.log.index import GrowingIndex, SegmentSummary
from kourou_broker.log.medium import Medium, SegmentFile, segment_name
from kourou_broker.log.options import MIB
from kourou_broker.log.scan import SegmentScan, is_zero, later_durable
from kourou_broker.log.sealing import DERIVED_PREFIXES, enter_sections, read_sealed, seal_index

Apply = Callable[[Frame], None]
Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Segment:
    """A segment as the log knows it; the times are 0 while it holds no frame."""

    base: int
    size_bytes: int
    end: int
    first_stored_ms: int = 0
    last_stored_ms: int = 0

    def enter(self, end: int, stored_ms: int) -> None:
        """A frame was added that ends there."""
        self.end = end
        self.first_stored_ms = self.first_stored_ms or stored_ms
        self.last_stored_ms = max(self.last_stored_ms, stored_ms)

    def summary(self, chain: int) -> SegmentSummary:
        """What its sealed index says of it."""
        return SegmentSummary(self.base, self.end, chain, self.first_stored_ms, self.last_stored_ms)


@dataclass(slots=True)
class Recovered:
    """What was found. `unsealed` are the indexes that could not be written, with the chain at their segment's end."""

    segments: list[Segment] = field(default_factory=list[Segment])
    active: GrowingIndex = field(default_factory=lambda: GrowingIndex(0))
    unsealed: dict[int, GrowingIndex] = field(default_factory=dict[int, GrowingIndex])
    chains: dict[int, int] = field(default_factory=dict[int, int])
    chain: int = 0


def recover(
    medium: Medium, segment_bytes: int, start: int, apply: Apply, on_progress: Progress | None = None
) -> Recovered:
    """Bring the medium into order, give all frames from `start` on to `apply`, and say what is there.

    Raises DamagedLog, MissingLog, NewerFormat (nothing but derived data has been changed then) and OSError.
    """
    files = medium.segments()
    if not files and start == 0:
        _begin(medium, segment_bytes)
        files = medium.segments()
    return _Recovery(medium, files, start, apply, on_progress).run()


def _begin(medium: Medium, segment_bytes: int) -> None:
    if segment_bytes not in medium.spares():
        medium.prepare(segment_bytes)
    medium.create(0, segment_bytes)


class _Recovery:
    def __init__(
        self, medium: Medium, files: list[SegmentFile], start: int, apply: Apply, on_progress: Progress | None
    ) -> None:
        self._medium = medium
        self._files = files
        self._start = start
        self._apply = apply
        self._on_progress = on_progress
        self._durable = start
        self._chain: int | None = None
        self._found = Recovered()

    def run(self) -> Recovered:
        if not self._files or self._start < self._files[0].base:
            raise MissingLog(self._medium.name, self._start, self._files[0].base if self._files else None)
        for number in range(len(self._files)):
            if self._skip_segment(number):
                continue
            if self._recover_segment(number):
                break
            self._seal_indexes()
        end = self._found.segments[-1].end
        if end < self._durable:
            raise self._damaged(end, f"the log ends here, though it was durable up to {self._durable}")
        self._make_durable(end)
        self._seal_indexes()
        self._drop_stray_blobs()
        self._found.chain = self._chain or 0
        return self._found

    def _skip_segment(self, number: int) -> bool:
        """A segment below the start needs no more than its index."""
        file = self._files[number]
        summary = self._summary(number)
        if summary is None or summary.end > self._start:
            return False
        _, end, self._chain, first_ms, last_ms = summary
        self._found.segments.append(Segment(file.base, file.size_bytes, end, first_ms, last_ms))
        return True

    def _recover_segment(self, number: int) -> bool:
        """Verify one segment; true if it is the last one that counts."""
        file = self._files[number]
        is_last = number + 1 == len(self._files)
        summary = self._summary(number)
        data = self._medium.read(file.base, 0, file.size_bytes)
        scan = SegmentScan(data, file.base, self._chain, None if is_last else self._files[number + 1].base)
        segment = Segment(file.base, file.size_bytes, file.base)
        index = GrowingIndex(file.base)
        self._read_frames(scan, segment, None if summary else index)
        self._chain = scan.chain
        self._durable = max(self._durable, scan.durable, summary.end if summary else 0)
        self._found.segments.append(segment)
        if scan.damage:
            self._judge(number, data, scan)
            self._cut(number, data, scan.end)
        if scan.damage or is_last:
            self._found.active = index
            return True
        if not summary:
            self._found.unsealed[file.base] = index
            self._found.chains[file.base] = scan.chain or 0
        return False

    def _read_frames(self, scan: SegmentScan, segment: Segment, index: GrowingIndex | None) -> None:
        first_ms = last_ms = 0
        for frame in scan.frames():
            if frame.end > self._start:
                if frame.position < self._start:
                    raise self._damaged(self._start, "no frame begins here, where the snapshot stands")
                self._apply(frame)
            stored_ms = frame.stored_ms
            if stored_ms > last_ms:
                last_ms = stored_ms
                first_ms = first_ms or stored_ms
            if index is not None:
                enter_sections(index, frame)
        segment.end, segment.first_stored_ms, segment.last_stored_ms = scan.end, first_ms, last_ms
        if self._on_progress:
            self._on_progress(segment.end, self._files[-1].base + self._files[-1].size_bytes)

    def _summary(self, number: int) -> SegmentSummary | None:
        if number + 1 == len(self._files):
            return None
        return read_sealed(self._medium, self._files[number].base, self._files[number + 1].base)

    def _judge(self, number: int, data: bytes, scan: SegmentScan) -> None:
        """Raise DamagedLog if what the scan stopped at had been durable."""
        durable = max(self._durable, later_durable(data, scan.base, scan.end - scan.base))
        for file in self._files[number + 1 :]:
            durable = max(durable, later_durable(self._medium.read(file.base, 0, file.size_bytes), file.base, 0))
        if durable > scan.end:
            raise self._damaged(scan.end, f"{scan.damage}, though the log was durable up to {durable}")

    def _cut(self, number: int, data: bytes, end: int) -> None:
        """Make an end at `end`, so that nothing dead comes back."""
        for file in reversed(self._files[number + 1 :]):
            self._medium.drop(file.base)
        base, size = self._files[number]
        offset = end - base
        if not is_zero(data, offset):
            for at in range(offset, size, MIB):
                self._medium.write(base, at, [bytes(min(MIB, size - at))])
            self._medium.sync(base)

    def _make_durable(self, end: int) -> None:
        """Write once more what may not be durable: after a failed sync, the page cache may hold what the disk lacks."""
        for segment in self._found.segments:
            first = max(self._durable, segment.base)
            if first < segment.end:
                data = self._medium.read(segment.base, first - segment.base, segment.end - first)
                self._medium.write(segment.base, first - segment.base, [data])
                self._medium.sync(segment.base)
        self._durable = end

    def _seal_indexes(self) -> None:
        """Write the missing indexes of what is durable; without space, they stay in memory and follow later."""
        found = self._found
        for base in list(found.unsealed):
            number = bisect_left(found.segments, base, key=lambda segment: segment.base)
            segment = found.segments[number]
            if segment.end > self._durable:
                return
            before = found.segments[number - 1].base if number else None
            try:
                seal_index(self._medium, found.unsealed[base], segment.summary(found.chains[base]), before, frozenset())
            except OSError:
                return
            del found.unsealed[base], found.chains[base]

    def _drop_stray_blobs(self) -> None:
        sealed = {f"{segment.base:016x}" for segment in self._found.segments[:-1]}
        for name in self._medium.list_blobs():
            if name.startswith(DERIVED_PREFIXES) and name.partition("-")[2] not in sealed:
                self._medium.drop_blob(name)

    def _damaged(self, position: int, what: str) -> DamagedLog:
        base = max(file.base for file in self._files if file.base <= position)
        return DamagedLog(segment_name(base), position, what, self._medium.name)
