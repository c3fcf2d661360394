"""Group commit: what was sealed while the last group went to the medium goes there together."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal

from kourou_broker.log.medium import Medium
from kourou_broker.log.worker import Worker
from kourou_service.metrics.histogram import Histogram

SYNC_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(slots=True)
class _Batch:
    """Frames that lie one behind the other in one segment."""

    base: int
    offset: int
    # Of a segment that does not exist yet: a spare of so many bytes becomes it.
    create_bytes: int
    end: int
    buffers: list[bytes] = field(default_factory=list[bytes])


class GroupCommit:
    """Writes frames and makes them durable, in the worker, one group at a time.

    `written` is the log position up to which all is on the medium, `synced` that up to which all is durable.
    With flush "async" a group is done when it is written, and a sync follows every `flush_interval_s`.
    """

    def __init__(
        self,
        medium: Medium,
        worker: Worker,
        flush: Literal["sync", "async"],
        flush_interval_s: float,
        position: int,
        on_done: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._medium = medium
        self._worker = worker
        self._sync = flush == "sync"
        self._flush_interval_s = flush_interval_s
        self._on_done = on_done
        self._on_failure = on_failure
        self.written = position
        self.synced = position
        self.failed = False
        self.groups = 0
        """How many were sent on their way."""
        self.sync_times = Histogram(SYNC_BOUNDS_S)
        # How many batches may start a segment: as many as there are spares.
        self._may_create = 0
        self._waiting: list[_Batch] = []
        self._running = False
        self._submitted = position
        self._unsynced: list[int] = []
        self._sync_timer: asyncio.TimerHandle | None = None

    def add(self, base: int, offset: int, create_bytes: int, end: int, frame: Iterable[bytes]) -> None:
        """Take one frame; `create_bytes` is not 0 if it is the first of a segment that is to be created."""
        waiting = self._waiting
        if waiting and waiting[-1].base == base:
            batch = waiting[-1]
            batch.end = end
        else:
            batch = _Batch(base, offset, create_bytes, end)
            waiting.append(batch)
        batch.buffers += frame
        if not self._running:
            self.start()

    def allow_create(self) -> None:
        """There is one more spare to make a segment of."""
        self._may_create += 1
        if not self._running:
            self.start()

    def start(self) -> None:
        """Send what waits on its way."""
        group = self._take()
        if not group or self.failed:
            return
        self._running = True
        self.groups += 1
        end = self._submitted = group[-1].end

        def work() -> list[float]:
            syncs_s: list[float] = []
            for batch in group:
                if batch.create_bytes:
                    self._medium.create(batch.base, batch.create_bytes)
                self._medium.append(batch.base, batch.offset, batch.buffers)
                if self._sync:
                    syncs_s.append(self._timed_sync(batch.base))
            return syncs_s

        if not self._sync:
            self._sync_later(group)
        self._worker.submit(work, lambda syncs_s: self._done(end, syncs_s), self._fail)

    def sync_now(self) -> None:
        """With flush "async": make durable what was written."""
        if self._sync_timer:
            self._sync_timer.cancel()
            self._sync_timer = None
        bases, self._unsynced = self._unsynced, []

        def work() -> list[float]:
            return [self._timed_sync(base) for base in bases]

        # The worker keeps the order: what was submitted is written when the sync begins.
        end = self._submitted
        self._worker.submit(work, lambda syncs_s: self._synced(end, syncs_s), self._fail)

    def _take(self) -> list[_Batch]:
        waiting = self._waiting
        for number, batch in enumerate(waiting):
            if batch.create_bytes:
                if not self._may_create:
                    self._waiting = waiting[number:]
                    return waiting[:number]
                self._may_create -= 1
        self._waiting = []
        return waiting

    def _timed_sync(self, base: int) -> float:
        began_s = perf_counter()
        self._medium.sync(base)
        return perf_counter() - began_s

    def _done(self, end: int, syncs_s: list[float]) -> None:
        self._running = False
        self._count(syncs_s)
        self.written = end
        if self._sync:
            self.synced = end
        if self._waiting:
            self.start()
        self._on_done()

    def _sync_later(self, group: list[_Batch]) -> None:
        for batch in group:
            if batch.base not in self._unsynced:
                self._unsynced.append(batch.base)
        if self._sync_timer is None:
            self._sync_timer = asyncio.get_running_loop().call_later(self._flush_interval_s, self.sync_now)

    def _synced(self, end: int, syncs_s: list[float]) -> None:
        self._count(syncs_s)
        self.synced = end
        self._on_done()

    def _count(self, syncs_s: list[float]) -> None:
        for seconds in syncs_s:
            self.sync_times.observe(seconds)

    def _fail(self, error: BaseException) -> None:
        # Never retried: after a failed sync nobody knows what the medium holds, and a second one would say all is well.
        if not self.failed:
            self.failed = True
            self._on_failure(error)
