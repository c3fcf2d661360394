"""Long walks in small steps, for what must not hold up the loop."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

SLICE_S = 0.001


async def in_slices(items: Iterable[T]) -> AsyncIterator[T]:
    """The items; whenever a millisecond was spent on them, the loop gets its turn. They must not change meanwhile."""
    ends_s = perf_counter() + SLICE_S
    for item in items:
        yield item
        if perf_counter() > ends_s:
            await asyncio.sleep(0)
            ends_s = perf_counter() + SLICE_S
