"""Simulated time: an asyncio loop whose clock moves only when nothing is left to do at the present moment.

Code under test uses the running loop for its timers and a `Clock` for the wall clock, as it does outside. Nothing ever
sleeps for real, and the order of events depends on the code and the seed alone.
"""

import asyncio
import contextlib
import contextvars
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# A turn that goes on and on at the same simulated time is a busy loop of the code under test.
MAX_TURNS_AT_ONE_TIME = 1_000_000

_process: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("simulated_process", default=None)


class NothingLeftToDo(Exception):
    """Everybody waits, and for nothing that a timer would bring: a deadlock in real life."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order they were scheduled; `time()` is in simulated seconds from 0."""

    _ready: Any
    _scheduled: Any

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._turns = 0
        self._clock_resolution = 1e-9
        self._selector = self  # BaseEventLoop calls select() on it once a turn
        self.abandoned: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        return self._now_s

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise NothingLeftToDo
        if timeout > 0:
            self._now_s, self._turns = self._scheduled[0]._when, 0
        self._turns += 1
        if self._turns > MAX_TURNS_AT_ONE_TIME:
            raise AssertionError(f"a busy loop at {self._now_s} s of simulated time")
        return []

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Threads would not be deterministic: the function runs at once."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as problem:
            future.set_exception(problem)
        return future

    # What a killed process has still to do is dropped: each callback belongs to the process in its context.

    def _call_soon(self, callback: Any, args: Any, context: contextvars.Context | None) -> asyncio.Handle:
        if not _alive(context):
            return _dropped(callback, args, self, context)
        return super()._call_soon(callback, args, context)  # type: ignore[misc]

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        if not _alive(context):
            return _dropped(callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    def create_task(self, coro: Any, *, name: object = None, context: contextvars.Context | None = None) -> Any:
        task = super().create_task(coro, name=name, context=context)  # type: ignore[arg-type]
        process = _process.get() if context is None else context.get(_process)
        if process is not None:
            process.tasks.add(task)
        return task

    def drop_callbacks_of(self, process: "Process") -> None:
        for task in process.tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                # Kept to the end: letting a task go now would run its clean-up.
                self.abandoned.append(task)
        for handle in [*self._ready, *self._scheduled]:  # after the tasks, some of which only a handle holds
            if handle._context is not None and handle._context.get(_process) is process:
                handle.cancel()

    def _process_events(self, event_list: list[Any]) -> None: ...

    def _write_to_self(self) -> None: ...


class Process:
    """A process of the simulated cluster: kill() ends whatever was started in it, without clean-up, as kill -9 does."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.context = contextvars.copy_context()
        self.context.run(_process.set, self)
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._on_kill: list[Callable[[], None]] = []

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs the coroutine as part of this process, and all that it starts."""
        return asyncio.get_running_loop().create_task(coroutine, context=self.context.copy())

    def on_kill(self, callback: Callable[[], None]) -> None:
        self._on_kill.append(callback)

    def kill(self) -> None:
        if not self.alive:
            return
        self.alive = False
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        loop.drop_callbacks_of(self)
        for callback in self._on_kill:
            callback()


class SimulatedClock:
    """The wall clock of one process; `skew_ms` may jump."""

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._start_ms = start_ms
        self.skew_ms = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def now_ms(self) -> int:
        # The code of a killed process asks once more when its coroutines are closed, and no loop runs any more.
        self._loop = self._loop or asyncio.get_running_loop()
        return self._start_ms + self.skew_ms + int(self._loop.time() * 1000)


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` to its end on simulated time. Tasks that are left are cancelled.

    Raises what main raised, else the first exception that nobody caught in a callback or a handler.
    """
    loop = SimulatedLoop()
    faults: list[BaseException] = []
    loop.set_exception_handler(lambda _, context: faults.append(context.get("exception") or AssertionError(context)))
    try:
        asyncio.set_event_loop(loop)
        result = loop.run_until_complete(main)
        if faults:
            raise faults[0]
        return result
    finally:
        _cancel_the_rest(loop)
        asyncio.set_event_loop(None)
        loop.close()


def current_process() -> Process | None:
    return _process.get()


def _cancel_the_rest(loop: SimulatedLoop) -> None:
    rest = [task for task in asyncio.all_tasks(loop) if task not in loop.abandoned]
    for task in rest:
        task.cancel()
    if rest:
        loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    for task in loop.abandoned:
        coroutine = task.get_coro()
        # A killed process cleans nothing up; what its code tries now has no loop to run on.
        with contextlib.suppress(Exception):
            if coroutine is not None:
                coroutine.close()


def _alive(context: contextvars.Context | None) -> bool:
    process = _process.get() if context is None else context.get(_process)
    return process is None or process.alive


def _dropped(callback: Any, args: Any, loop: SimulatedLoop, context: contextvars.Context | None) -> asyncio.TimerHandle:
    handle = asyncio.TimerHandle(0, callback, args, loop, context)
    handle._cancelled = True  # type: ignore[attr-defined]
    return handle
