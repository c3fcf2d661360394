"""Room for the log: one spare segment always ready, and a watermark below which new messages are refused."""

import asyncio
from collections.abc import Callable

from kourou_broker.log.medium import DiskSpace, Medium
from kourou_broker.log.options import LogOptions
from kourou_broker.log.worker import Worker


class Space:
    """Prepares spares in the background. `on_spare` is called whenever there is one more."""

    def __init__(self, medium: Medium, background: Worker, options: LogOptions, on_spare: Callable[[], None]) -> None:
        self._medium = medium
        self._background = background
        self._options = options
        self._on_spare = on_spare
        # Spares that no segment was promised; below 0: so many segments wait for theirs.
        self._ready = 0
        self._preparing = False
        self._full = False
        self._low = False
        self.disk = DiskSpace(0, 0)
        """As it was seen last."""
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def writable(self) -> bool:
        """Whether new messages may be taken: there is free space, and a spare, or soon will be."""
        return not (self._low or self._full)

    def can_take(self) -> bool:
        """Whether one more segment may be started."""
        return self._ready > 0 or self.writable

    def take(self) -> None:
        """Promise a spare to a new segment; the next one is prepared at once."""
        self._ready -= 1
        self._prepare()

    @property
    def wants_spare(self) -> bool:
        """Whether a segment that is dropped should become a spare."""
        return self._ready < 1 and not self._preparing

    def recycled(self) -> None:
        """A dropped segment has become a spare."""
        self._add()

    def start(self) -> None:
        """Count what is there, and begin to watch."""
        spares = self._medium.spares()
        if any(size != self._options.segment_bytes for size in spares):
            self._medium.drop_spares()
            spares = []
        for _ in spares:
            self._add()
        self._see(self._medium.disk())
        self._prepare()
        self._watch()

    def close(self) -> None:
        """Stop watching."""
        self._closed = True
        if self._timer:
            self._timer.cancel()

    def _watch(self) -> None:
        if not self._closed:
            self._timer = asyncio.get_running_loop().call_later(self._options.space_check_interval_s, self._check)

    def _check(self) -> None:
        self._background.submit(self._medium.disk, self._checked, self._check_failed)

    def _checked(self, disk: DiskSpace) -> None:
        self._see(disk)
        self._prepare()
        self._watch()

    def _see(self, disk: DiskSpace) -> None:
        self.disk = disk
        self._low = disk.free_bytes < self._options.disk_watermark_bytes

    def _check_failed(self, _: BaseException) -> None:
        self._low = True
        self._watch()

    def _prepare(self) -> None:
        if self._ready > 0 or self._preparing or self._closed:
            return
        self._preparing = True
        size = self._options.segment_bytes
        self._background.submit(lambda: self._medium.prepare(size), self._prepared, self._prepare_failed)

    def _prepared(self, _: None) -> None:
        self._preparing = False
        self._add()
        self._prepare()

    def _prepare_failed(self, _: BaseException) -> None:
        # A full disk, usually: tried again at the next check.
        self._preparing = False
        self._full = True

    def _add(self) -> None:
        self._ready += 1
        self._full = False
        self._on_spare()
