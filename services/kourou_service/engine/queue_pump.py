"""Brings the events of a completion queue onto the asyncio loop, in turns.

A thread waits for the first event and wakes the loop; the loop takes that one and all that are there by then, in one
callback. So what handlers schedule by `loop.call_soon` runs after the whole drain: the broker seals one frame a turn.
While there is work the loop polls again by itself, once round; the thread takes over when a poll finds nothing. That
spares two thread switches a turn under load.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence

from kourou_service.engine.private_api import COMPLETE, SHUT_DOWN, TIMED_OUT, BatchEvent, CompletionQueue, Server

TURN_BUDGET_S = 0.002
POLL_TIMEOUT_S = 5.0

log = logging.getLogger(__name__)


class QueuePump:
    """Calls `event.tag(event)` on the loop for every event of `queue`.

    `servers` are only held: they must not be freed while the thread runs, not even if the engine is.
    """

    def __init__(self, queue: CompletionQueue, servers: Sequence[Server], loop: asyncio.AbstractEventLoop) -> None:
        self._queue = queue
        self._servers = servers
        self._loop = loop
        self._first: BatchEvent | None = None
        self._drained = threading.Lock()  # held while the loop has the queue, or the thread waits for it
        self._drained.acquire()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._wait_for_events, name="kourou-engine-poll", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def ended(self) -> None:
        """Returns when the queue has been shut down and all its events were taken."""
        await self._ended.wait()
        self._thread.join()

    def _wait_for_events(self) -> None:
        while True:
            event = self._queue.poll(time.time() + POLL_TIMEOUT_S)
            if event.completion_type == SHUT_DOWN:
                break
            if event.completion_type == TIMED_OUT:
                continue
            self._first = event
            del event  # the loop lets go of it; a second reference here would outlive the next poll
            if not self._wake(self._turn):
                return
            self._drained.acquire()
        self._wake(self._ended.set)

    def _wake(self, callback: Callable[[], None]) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop was closed without a stop of the engine
            return False
        return True

    def _turn(self) -> None:
        poll = self._queue.poll
        event, self._first = self._first, None
        if event is None:
            event = poll(0)
            if event.completion_type != COMPLETE:
                self._drained.release()
                return
        ends = time.monotonic() + TURN_BUDGET_S
        while event.completion_type == COMPLETE:
            try:
                event.tag(event)
            except Exception:
                log.exception("an event of the engine failed")
            del event
            if time.monotonic() > ends:
                break
            event = poll(0)
        self._loop.call_soon(self._turn)
