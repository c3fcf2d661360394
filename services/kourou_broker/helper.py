"""A helper process for what reads a lot: it shares only files with the broker, and ends when the broker does.

This module imports nothing large: it is all that a helper runs before it is as nice as it shall be.
"""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar, TypeVarTuple

A = TypeVarTuple("A")
T = TypeVar("T")


class Helper:
    """Started with the first job; does one at a time.

    niceness: of 0 to 19; a nice process gives way to others, and still gets some time. idle_s: it ends when it had
    nothing to do for so long, and starts again with the next job; None: it stays.
    """

    def __init__(self, *, niceness: int = 0, idle_s: float | None = None) -> None:
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
