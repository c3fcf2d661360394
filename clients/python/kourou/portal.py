"""The event loop behind the blocking classes: one background thread for all of them."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Portal:
    """Started with its first use. A forked child starts its own."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Blocks until it is done. Interrupted (Ctrl-C), it cancels the work. Raises what the work raises, and
        RuntimeError on the portal's own thread, where it would wait for itself."""
        try:
            self.check_not_within()
        except RuntimeError:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, self._running_loop())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def check_not_within(self) -> None:
        """Raises RuntimeError on the portal's own thread."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a blocking client on the event loop of the clients would wait for itself")

    def call_soon(self, callback: Callable[[], object]) -> None:
        self._running_loop().call_soon_threadsafe(callback)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                started = threading.Event()
                self._loop = asyncio.new_event_loop()
                self._loop.call_soon(started.set)
                self._thread = threading.Thread(target=self._loop.run_forever, name="kourou clients", daemon=True)
                self._thread.start()
                started.wait()
            return self._loop

    def stop(self) -> None:
        """At the end of the process: what still runs is cancelled, so that nothing is torn down half."""
        if self._loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result(timeout=5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5.0)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=2.0) if tasks else None


_portal = Portal()


def _after_fork() -> None:
    global _portal
    _portal = Portal()


def _at_exit() -> None:
    _portal.stop()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs it on the portal of this process."""
    return _portal.run(work)


def call_soon(callback: Callable[[], object]) -> None:
    """On the event loop of this process's portal."""
    _portal.call_soon(callback)


def check_not_within() -> None:
    """Raises RuntimeError on the portal's own thread, where a blocking call would wait for itself."""
    _portal.check_not_within()
