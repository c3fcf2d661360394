"""A helper process for what reads a lot: it shares only files with the broker, and ends when the broker does."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from kourou_broker.log.file_medium import FileMedium
from kourou_broker.log.repair import scrub
from kourou_broker.state import fold
from kourou_broker.state.indexing import index_segment

A = TypeVarTuple("A")
T = TypeVar("T")


class Helper:
    """Started with the first job; does one at a time.

    niceness: of 0 to 19; at 19 it gets only the time that nobody else wants. idle_s: it ends when it had nothing to do
    for so long, and starts again with the next job; None: it stays.
    """

    def __init__(self, folder: Path, *, niceness: int = 0, idle_s: float | None = None) -> None:
        self._folder = folder
        self._niceness = niceness
        self._idle_s = idle_s
        self._jobs = 0
        self._pool: ProcessPoolExecutor | None = None
        self._end: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Before the first job, which then finds a process that has imported what it needs."""
        self._submit(_nothing)

    async def run(self, job: Callable[[*A], T], *args: *A) -> T:
        """Runs a function of a module in the helper process; it and what it takes and gives must be picklable."""
        self._jobs += 1
        try:
            return await asyncio.wrap_future(self._submit(job, *args))
        except BrokenProcessPool:
            self._pool = None  # it was killed, for want of memory perhaps: the next job gets a new one
            raise
        finally:
            self._jobs -= 1
            self._wait_for_more()

    async def fold_to(self, position: int) -> bytes:
        """The snapshot of a log position."""
        return await self.run(_fold_to, self._folder, position)

    async def scrub(self, base: int) -> str | None:
        """What is wrong with the sealed segment at that base."""
        return await self.run(_scrub, self._folder, base)

    async def index(self, base: int) -> None:
        """Builds what is missing of the indexes of the sealed segment at that base."""
        await self.run(_index, self._folder, base)

    def _submit(self, job: Callable[[*A], T], *args: *A) -> Future[T]:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, initializer=_begin, initargs=(self._niceness,))
        with _interrupts_blocked():
            return self._pool.submit(job, *args)

    def close(self) -> None:
        self._idle_s = None
        self._stop(wait=True)

    def _wait_for_more(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if self._idle_s is not None:
            self._end = asyncio.get_running_loop().call_later(self._idle_s, self._rest)

    def _rest(self) -> None:
        if not self._jobs:
            self._stop(wait=False)

    def _stop(self, *, wait: bool) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if self._pool is not None:
            self._pool.shutdown(wait, cancel_futures=True)
            self._pool = None


def _nothing() -> None: ...


def _fold_to(folder: Path, position: int) -> bytes:
    with closing(FileMedium(folder, read_only=True)) as medium:
        return fold.snapshot_at(medium, position)


def _scrub(folder: Path, base: int) -> str | None:
    with closing(FileMedium(folder, read_only=True)) as medium:
        return scrub(medium, base)


def _index(folder: Path, base: int) -> None:
    with closing(FileMedium(folder, read_only=True)) as medium:
        index_segment(medium, base)


@contextmanager
def _interrupts_blocked() -> Generator[None]:
    """A process started meanwhile never hears of Ctrl-C, which is for the broker: it ends its helper itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(niceness: int) -> None:
    os.nice(niceness)
    _end_with_parent()


def _end_with_parent() -> None:
    """A broker that is killed cannot stop its helper: the helper watches it."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
