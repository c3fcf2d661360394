"""Batching without added delay, as a log's group commit does it: what arrives while requests are under way waits and
shares the next one. Nobody waits for company: an item that comes alone leaves at the end of the same turn of the loop.

What waits is bounded by the callers: each of them waits for its own result.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Item(Protocol):
    @property
    def count(self) -> int:
        """What it adds to a batch's count."""
        ...

    @property
    def size_bytes(self) -> int: ...


T = TypeVar("T", bound=Item)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Limits:
    max_in_flight: int
    """Batches under way at the same time."""
    max_count: int
    max_bytes: int
    """Of a batch; an item that is larger travels alone."""


class Coalescer(Generic[T, R]):
    """Items for one destination, sent in batches, in the order of their arrival."""

    def __init__(
        self,
        send: Callable[[list[T]], Awaitable[Sequence[R | Exception]]],
        limits: Limits,
        on_idle: Callable[[], object] | None = None,
    ) -> None:
        """`on_idle`: called when nothing waits or is under way any more, for destinations that come and go."""
        self._send = send
        self._limits = limits
        self._on_idle = on_idle
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._flush_due = False

    def submit(self, item: T) -> asyncio.Future[R]:
        """The item's result. When it is cancelled before the item has left, the item never does."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, result))
        if not self._flush_due and len(self._in_flight) < self._limits.max_in_flight:
            self._flush_due = True
            loop.call_soon(self._flush)
        return result

    async def close(self) -> None:
        """Everything that waits or is under way is cancelled."""
        for _, result in self._waiting:
            result.cancel()
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)

    async def drain(self) -> None:
        """Returns when nothing waits and nothing is under way."""
        while self._waiting or self._in_flight:
            await asyncio.wait(self._in_flight) if self._in_flight else await asyncio.sleep(0)

    def _flush(self) -> None:
        self._flush_due = False
        while len(self._in_flight) < self._limits.max_in_flight:
            batch = self._take()
            if not batch:
                break
            task = asyncio.create_task(self._run(batch))
            self._in_flight.add(task)
            task.add_done_callback(self._ended)
        if self._on_idle is not None and not self._waiting and not self._in_flight:
            self._on_idle()

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        count = size_bytes = 0
        while self._waiting:
            item, result = self._waiting[0]
            count, size_bytes = count + item.count, size_bytes + item.size_bytes
            if batch and (count > self._limits.max_count or size_bytes > self._limits.max_bytes):
                break
            self._waiting.popleft()
            if result.cancelled():
                count, size_bytes = count - item.count, size_bytes - item.size_bytes
            else:
                batch.append((item, result))
        return batch

    async def _run(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            outcomes = await self._send([item for item, _ in batch])
            for (_, result), outcome in zip(batch, outcomes, strict=True):
                _settle(result, outcome)
        except Exception as error:
            for _, result in batch:
                _settle(result, error)
        finally:
            for _, result in batch:
                result.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._flush()


def _settle(result: asyncio.Future[R], outcome: R | Exception) -> None:
    if result.done():
        return
    if isinstance(outcome, Exception):
        result.set_exception(outcome)
    else:
        result.set_result(outcome)
