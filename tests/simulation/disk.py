"""A simulated disk: what was not synced may be lost, torn or reordered when the power goes, as a seed wants it.

disk = SimDisk(random.Random(seed))
medium = SimMedium(disk)        # what a process opens; a second one meanwhile is refused
disk.kill()                     # the process is gone; the page cache stays
disk.cut_power()                # what was not synced may be gone, sector by sector
disk.power_cut_at = n           # power goes at the nth change of the disk: PowerCut is raised there
"""

import asyncio
import errno
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from kourou_broker.log.errors import DataLocked
from kourou_broker.log.medium import Bytes, DiskSpace, SegmentFile

T = TypeVar("T")

SECTOR_BYTES = 512


class PowerCut(BaseException):
    """The power went while the disk was changed; the process that sees this does not live to handle it."""


@dataclass
class _Segment:
    # As a process reads it, and as it is on the platter; `unsynced` are the writes between the two, in order.
    cache: bytearray
    durable: bytearray
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)


class SimDisk:
    """The hardware: it outlives the processes that use it."""

    def __init__(self, rng: random.Random, capacity_bytes: int = 1 << 40) -> None:
        self.rng = rng
        self.capacity_bytes = capacity_bytes
        self.identity = rng.randbytes(16)
        self.segments: dict[int, _Segment] = {}
        self.spares: list[int] = []
        self.blobs: dict[str, bytes] = {}
        self.changes = 0
        self.power_cut_at: int | None = None
        # The next write or sync fails with it.
        self.write_error: OSError | None = None
        self.sync_error: OSError | None = None
        self.opened: SimMedium | None = None

    def kill(self) -> None:
        """The process that had the disk open is gone; what it wrote is still in the page cache."""
        self.opened = None

    def cut_power(self) -> None:
        """The process and the page cache are gone."""
        self.opened = None
        self.power_cut_at = None
        for segment in self.segments.values():
            if segment.unsynced:
                _tear(segment, self.rng)

    def flip(self, base: int, offset: int, mask: int = 1) -> None:
        """Damage one byte."""
        segment = self.segments[base]
        segment.durable[offset] ^= mask
        segment.cache[offset] ^= mask

    def used_bytes(self) -> int:
        sizes = (len(segment.cache) for segment in self.segments.values())
        return sum(sizes) + sum(self.spares) + sum(map(len, self.blobs.values()))

    def change(self, needs_bytes: int = 0) -> None:
        """Count a change, before it is made."""
        self.changes += 1
        if self.power_cut_at is not None and self.changes >= self.power_cut_at:
            raise PowerCut
        if needs_bytes and self.used_bytes() + needs_bytes > self.capacity_bytes:
            raise OSError(errno.ENOSPC, "no space left on the simulated disk")


def _tear(segment: _Segment, rng: random.Random) -> None:
    """Each sector is as it was after some number of the writes to it: none, some, or all."""
    fate = rng.choice(("lost", "kept", "torn", "torn", "prefix"))
    writes = segment.unsynced
    if fate == "lost":
        writes = []
    elif fate == "prefix":
        writes = writes[: rng.randrange(len(writes) + 1)]
    if fate == "torn":
        _tear_sectors(segment, rng)
    else:
        for offset, data in writes:
            segment.durable[offset : offset + len(data)] = data
    segment.unsynced = []
    segment.cache = bytearray(segment.durable)


def _tear_sectors(segment: _Segment, rng: random.Random) -> None:
    keep = rng.random()
    stuck: set[int] = set()
    for offset, data in segment.unsynced:
        for sector in range(offset // SECTOR_BYTES, -(-(offset + len(data)) // SECTOR_BYTES)):
            # A sector that missed a write misses the later ones too: writes to one do not overtake each other.
            if sector in stuck or rng.random() > keep:
                stuck.add(sector)
                continue
            first = max(offset, sector * SECTOR_BYTES)
            last = min(offset + len(data), (sector + 1) * SECTOR_BYTES)
            segment.durable[first:last] = data[first - offset : last - offset]


class SimMedium:
    """The medium of a log on a simulated disk."""

    def __init__(self, disk: SimDisk, name: str = "simulated") -> None:
        if disk.opened is not None:
            raise DataLocked(f"the data folder {name} is in use by another process")
        disk.opened = self
        self._disk = disk
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> bytes:
        return self._disk.identity

    def segments(self) -> list[SegmentFile]:
        return sorted(SegmentFile(base, len(segment.cache)) for base, segment in self._open().segments.items())

    def spares(self) -> list[int]:
        return list(self._open().spares)

    def prepare(self, size_bytes: int) -> None:
        self._open().change(size_bytes)
        self._disk.spares.append(size_bytes)

    def drop_spares(self) -> None:
        self._open().change()
        self._disk.spares.clear()

    def create(self, base: int, size_bytes: int) -> None:
        self._open().change()
        if size_bytes not in self._disk.spares:
            raise FileNotFoundError(f"no spare segment of {size_bytes} bytes")
        assert base not in self._disk.segments
        self._disk.spares.remove(size_bytes)
        self._disk.segments[base] = _Segment(bytearray(size_bytes), bytearray(size_bytes))

    def write(self, base: int, offset: int, buffers: Sequence[Bytes]) -> None:
        disk = self._open()
        if disk.write_error:
            raise disk.write_error
        segment = disk.segments[base]
        data = b"".join(buffers)
        assert offset + len(data) <= len(segment.cache), "written past the end of a segment"
        try:
            disk.change()
        except PowerCut:
            # It goes while the write is on its way.
            data = data[: disk.rng.randrange(len(data) + 1)]
            raise
        finally:
            segment.unsynced.append((offset, data))
            segment.cache[offset : offset + len(data)] = data

    def append(self, base: int, offset: int, buffers: Sequence[Bytes]) -> None:
        """Zeros are written on to the end of a sector, as the real medium does to the end of a page."""
        end = offset + sum(map(len, buffers))
        room = len(self._open().segments[base].cache) - end
        self.write(base, offset, (*buffers, bytes(min(-end % SECTOR_BYTES, room))))

    def sync(self, base: int) -> None:
        disk = self._open()
        disk.change()
        if disk.sync_error:
            raise disk.sync_error
        segment = disk.segments[base]
        for offset, data in segment.unsynced:
            segment.durable[offset : offset + len(data)] = data
        segment.unsynced.clear()

    def read(self, base: int, offset: int, size_bytes: int) -> bytes:
        return bytes(self._open().segments[base].cache[offset : offset + size_bytes])

    def view(self, base: int) -> bytes:
        return bytes(self._open().segments[base].cache)

    def read_now(self, base: int, offset: int, size_bytes: int) -> bytes | None:
        return None  # each read takes its time

    def recycle(self, base: int) -> None:
        self._open().change()
        self._disk.spares.append(len(self._disk.segments.pop(base).cache))

    def drop(self, base: int) -> None:
        self._open().change()
        del self._disk.segments[base]

    def list_blobs(self) -> list[str]:
        return sorted(self._open().blobs)

    def read_blob(self, name: str) -> bytes:
        blobs = self._open().blobs
        if name not in blobs:
            raise FileNotFoundError(name)
        return blobs[name]

    def view_blob(self, name: str) -> memoryview:
        return memoryview(self.read_blob(name))

    def write_blob(self, name: str, data: bytes) -> None:
        self._open().change(len(data))
        self._disk.blobs[name] = data

    def drop_blob(self, name: str) -> None:
        self._open().change()
        self._disk.blobs.pop(name, None)

    def disk(self) -> DiskSpace:
        capacity_bytes = self._open().capacity_bytes
        return DiskSpace(max(0, capacity_bytes - self._disk.used_bytes()), capacity_bytes)

    def close(self) -> None:
        if self._disk.opened is self:
            self._disk.opened = None

    def _open(self) -> SimDisk:
        if self._disk.opened is not self:
            raise OSError(errno.EBADF, "this process is dead: its disk was taken away")
        return self._disk


class SimWorker:
    """Does the work on the loop, a while after it was submitted, and in order.

    `delay_s` gives the time that a piece of work takes; `on_power_cut` is called when it ran into a PowerCut.
    """

    def __init__(
        self, delay_s: Callable[[], float] = lambda: 0.0, on_power_cut: Callable[[], None] = lambda: None
    ) -> None:
        self._delay_s = delay_s
        self._on_power_cut = on_power_cut
        self._free_at_s = 0.0
        # Timers of the same time come in any order, so they run whatever is next.
        self._jobs: deque[Callable[[], None]] = deque()

    def submit(self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[BaseException], None]) -> None:
        loop = asyncio.get_running_loop()
        self._free_at_s = max(self._free_at_s, loop.time()) + self._delay_s()

        def run() -> None:
            try:
                result = work()
            except PowerCut:
                self._jobs.clear()
                self._on_power_cut()
            except Exception as error:
                failed(error)
            else:
                done(result)

        self._jobs.append(run)
        loop.call_at(self._free_at_s, self._run_next)

    def _run_next(self) -> None:
        if self._jobs:
            self._jobs.popleft()()
