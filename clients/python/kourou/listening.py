"""Runs a push consumer's listener: a bounded cache of messages, and so many at a time."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from kourou.message import ReceivedMessage
from kourou.room import Room

_log = logging.getLogger(__name__)

Listener = Callable[[ReceivedMessage], object] | Callable[[ReceivedMessage], Awaitable[object]]
"""Called with each message. An exception, or False as the result, means that the message is to come again; anything
else settles it. A coroutine function runs on the event loop, any other in a thread."""


class Listening:
    def __init__(self, listener: Listener, concurrency: int, max_cached_count: int, max_cached_bytes: int) -> None:
        self._listener = listener
        self._is_async = inspect.iscoroutinefunction(listener) or inspect.iscoroutinefunction(
            getattr(listener, "__call__", None)  # noqa: B004
        )
        self._concurrency = concurrency
        self._cache = Room(max_cached_count, max_cached_bytes)
        self._queue: asyncio.Queue[tuple[ReceivedMessage, asyncio.Future[bool]] | None] = asyncio.Queue()
        self._workers: list[asyncio.Task[None]] = []
        self._threads: ThreadPoolExecutor | None = None

    def start(self) -> None:
        if not self._is_async:
            self._threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="kourou listener")
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._concurrency)]

    async def room(self) -> None:
        """Returns when the cache may take the messages of another poll."""
        await self._cache.wait()

    def put(self, message: ReceivedMessage) -> asyncio.Future[bool]:
        """Whether the listener settled it; cancelled when the consumer closes before it was begun. It counts as cached
        until `release`."""
        self._cache.take(message)
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((message, done))
        return done

    def release(self, message: ReceivedMessage) -> None:
        self._cache.release(message)

    async def close(self, grace_s: float) -> None:
        """Begins no further message, and gives the running ones that long."""
        while not self._queue.empty():
            waiting = self._queue.get_nowait()
            if waiting is not None:
                waiting[1].cancel()
        for _ in self._workers:
            self._queue.put_nowait(None)
        if self._workers:
            _, late = await asyncio.wait(self._workers, timeout=grace_s)
            for worker in late:
                worker.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        while (waiting := await self._queue.get()) is not None:
            message, done = waiting
            try:
                settled = await self._listen(message)
            except (Exception, asyncio.CancelledError, SystemExit):
                if _is_cancelled():
                    done.cancel()
                    raise
                # Also a SystemExit, which would end the event loop of all clients, is the listener's own failure.
                _log.exception("the listener failed on %s", message)
                settled = False
            if not done.done():
                done.set_result(settled)

    async def _listen(self, message: ReceivedMessage) -> bool:
        if self._is_async:
            result = await cast("Callable[[ReceivedMessage], Awaitable[object]]", self._listener)(message)
        else:
            result = await asyncio.get_running_loop().run_in_executor(self._threads, self._listener, message)
            if inspect.isawaitable(result):  # of a lambda around a coroutine function
                result = await result
        return result is not False


def _is_cancelled() -> bool:
    """The worker itself, not something that the listener waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
