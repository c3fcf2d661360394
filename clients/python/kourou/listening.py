"""Runs a push consumer's listener: a bounded cache of messages, and so many at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from kourou.callbacks import FAULTS, Callback, is_cancelled
from kourou.received import ReceivedMessage
from kourou.room import Room

_log = logging.getLogger(__name__)

Listener = Callable[[ReceivedMessage], object] | Callable[[ReceivedMessage], Awaitable[object]]
"""Called with each message. An exception, or False as the result, means that the message is to come again; anything
else settles it. A coroutine function runs on the event loop, any other in a thread."""


class Listening:
    def __init__(self, listener: Listener, concurrency: int, max_cached_count: int, max_cached_bytes: int) -> None:
        self._listener = Callback(listener, concurrency, "kourou listener")
        self._concurrency = concurrency
        self._cache = Room(max_cached_count, max_cached_bytes)
        self._queue: asyncio.Queue[tuple[ReceivedMessage, asyncio.Future[bool]] | None] = asyncio.Queue()
        self._workers: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._concurrency)]

    async def room(self) -> None:
        """Returns when the cache may take the messages of another poll."""
        await self._cache.wait()

    def take(self, message: ReceivedMessage) -> None:
        """It counts as cached until `release`."""
        self._cache.take(message)

    def hear(self, message: ReceivedMessage) -> asyncio.Future[bool]:
        """Whether the listener settled it; cancelled when the consumer closes before it was begun."""
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
        self._listener.close()

    async def settles(self, message: ReceivedMessage) -> bool:
        """Calls the listener at once, outside of its order and limits."""
        try:
            return await self._listener(message) is not False
        except FAULTS:
            if is_cancelled():
                raise
            _log.exception("the listener failed on %s", message)
            return False

    async def _work(self) -> None:
        while (waiting := await self._queue.get()) is not None:
            message, done = waiting
            try:
                settled = await self.settles(message)
            except asyncio.CancelledError:
                done.cancel()
                raise
            if not done.done():
                done.set_result(settled)
