"""Waiting for what happens in other processes."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

T = TypeVar("T")


async def eventually(
    probe: Callable[[], T | Awaitable[T]], timeout_s: float = 10.0, interval_s: float = 0.05, what: str = ""
) -> T:
    """The first true answer. An AssertionError in the probe counts as no, and is shown if that does not change."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    while True:
        problem: AssertionError | None = None
        answer = None
        try:
            found = probe()
            answer = cast("T", await found if inspect.isawaitable(found) else found)
            if answer:
                return answer
        except AssertionError as error:
            problem = error
        if loop.time() > deadline_s:
            raise AssertionError(f"not within {timeout_s} s: {what or probe}; at last {answer!r}") from problem
        await asyncio.sleep(interval_s)
