"""Runs a push consumer's listener: a bounded cache of messages, and so many calls at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from kourou.callbacks import FAULTS, Callback, is_cancelled
from kourou.received import ReceivedMessage
from kourou.room import Room

_log = logging.getLogger(__name__)

Listener = Callable[[ReceivedMessage], object] | Callable[[ReceivedMessage], Awaitable[object]]
"""Called with each message. An exception, or False as the result, means that the message is to come again; anything
else settles it. A coroutine function runs on the event loop, any other in a thread."""

BatchListener = Callable[[list[ReceivedMessage]], object] | Callable[[list[ReceivedMessage]], Awaitable[object]]
"""Called with the messages of one delivery, in their order. An exception, or False as the result, means that all are to
come again, a list of some of them that those are; anything else settles all."""

_CALLS_A_TURN = 128

Heard = Callable[[Sequence[ReceivedMessage], bool | None], None]
"""Called with messages that the listener was called with, and whether it settled them; with None, if the consumer
closed before it was called."""


class Listening:
    def __init__(
        self,
        listener: Listener | None,
        batch_listener: BatchListener | None,
        concurrency: int,
        max_cached_count: int,
        max_cached_bytes: int,
    ) -> None:
        """One of the two listeners."""
        self._single = None if listener is None else Callback(listener, concurrency, "kourou listener")
        self._batch = None if batch_listener is None else Callback(batch_listener, concurrency, "kourou listener")
        self._concurrency = concurrency
        self.cache = Room(max_cached_count, max_cached_bytes)
        self._waiting: deque[tuple[list[ReceivedMessage], Heard]] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._workers: list[asyncio.Task[None]] = []
        self._closed = False

    def start(self) -> None:
        self._closed = False
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._concurrency)]

    def portions(self, messages: list[ReceivedMessage]) -> list[list[ReceivedMessage]]:
        """Of each call of the listener, for messages that came together."""
        return [[message] for message in messages] if self._batch is None else [messages]

    def put(self, portion: list[ReceivedMessage], heard: Heard) -> None:
        """Its turn comes."""
        self._waiting.append((portion, heard))
        if self._idle:
            self._wake_one()

    def hear(self, portion: list[ReceivedMessage]) -> asyncio.Future[bool]:
        """Whether the listener settled all of it; cancelled when the consumer closes before it was begun."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def heard(_: Sequence[ReceivedMessage], settled: bool | None) -> None:
            if done.done():
                return
            if settled is None:
                done.cancel()
            else:
                done.set_result(settled)

        self.put(portion, heard)
        return done

    async def close(self, grace_s: float) -> None:
        """Begins no further call, and gives the running ones that long."""
        self._closed = True
        while self._waiting:
            portion, heard = self._waiting.popleft()
            heard(portion, None)
        while self._idle:
            self._wake_one()
        if self._workers:
            _, late = await asyncio.wait(self._workers, timeout=grace_s)
            for worker in late:
                worker.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for listener in (self._single, self._batch):
            if listener is not None:
                listener.close()

    async def settles(self, portion: list[ReceivedMessage]) -> list[ReceivedMessage]:
        """Calls the listener at once, outside of its order and limits: those that are to come again."""
        try:
            if self._single is not None:
                settled = await self._single(portion[0]) is not False
                return [] if settled else portion
            assert self._batch is not None
            result = await self._batch(portion)
        except FAULTS:
            if is_cancelled():
                raise
            _log.exception("the listener failed on %s", portion[0] if len(portion) == 1 else f"{len(portion)} messages")
            return portion
        if result is False:
            return portion
        if not isinstance(result, list):
            return []
        again = {id(message) for message in cast("list[object]", result)}
        return [message for message in portion if id(message) in again]

    async def _work(self) -> None:
        waiting = self._waiting
        calls = 0
        while not self._closed:
            calls += 1
            if not calls % _CALLS_A_TURN:
                await asyncio.sleep(0)  # a listener that never waits must not keep the loop for itself
            if not waiting:
                turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(turn)
                await turn
                continue
            portion, heard = waiting.popleft()
            try:
                failed = await self.settles(portion)
            except asyncio.CancelledError:
                heard(portion, None)
                raise
            if not failed:
                heard(portion, True)
            elif len(failed) == len(portion):
                heard(portion, False)
            else:
                again = set(map(id, failed))
                heard(failed, False)
                heard([message for message in portion if id(message) not in again], True)

    def _wake_one(self) -> None:
        turn = self._idle.popleft()
        if not turn.done():
            turn.set_result(None)
