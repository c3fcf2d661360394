"""Functions of the application that are called with messages."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar, cast

FAULTS = (Exception, asyncio.CancelledError, SystemExit)
"""What such a function may raise and is its own failure; a SystemExit would end the event loop of all clients."""

T = TypeVar("T")


class Callback(Generic[T]):
    """A coroutine function runs on the event loop, any other in a thread."""

    def __init__(self, function: Callable[[T], object], concurrency: int, name: str) -> None:
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004
        )
        self._concurrency = concurrency
        self._name = name
        self._threads: ThreadPoolExecutor | None = None

    async def __call__(self, argument: T) -> object:
        """What the function returns. Raises what it raises."""
        if self._is_async:
            return await cast("Callable[[T], Awaitable[object]]", self._function)(argument)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix=self._name)
        result = await asyncio.get_running_loop().run_in_executor(self._threads, self._function, argument)
        return await result if inspect.isawaitable(result) else result  # of a lambda around a coroutine function

    def close(self) -> None:
        """Begins no further call, and waits for none."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


def is_cancelled() -> bool:
    """The task itself, not something that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
