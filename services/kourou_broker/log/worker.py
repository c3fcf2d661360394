"""Where the log's blocking work is done."""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Protocol, TypeVar

T = TypeVar("T")


class Worker(Protocol):
    """Does one piece of work after the other, off the loop, in the order they were submitted."""

    def submit(self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[BaseException], None]) -> None:
        """Run `work`; then, on the loop, `done` with its result or `failed` with what it raised."""
        ...


async def run_in(worker: Worker, work: Callable[[], T]) -> T:
    """What `work` returns or raises. It is submitted at once, and done even when the one who waits is cancelled."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def done(result: T) -> None:
        if not future.done():
            future.set_result(result)

    def failed(error: BaseException) -> None:
        if not future.done():
            future.set_exception(error)

    worker.submit(work, done, failed)
    return await future


class ThreadWorker:
    """One dedicated thread for the running loop."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[BaseException], None]) -> None:
        """Run `work` on the thread; `done` or `failed` follows on the loop."""

        def job() -> None:
            try:
                result = work()
            except BaseException as error:  # whatever it was belongs to the one who asked
                self._tell(failed, error)
            else:
                self._tell(done, result)

        self._jobs.put(job)

    def close(self) -> None:
        """Finish what was submitted and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _tell(self, callback: Callable[[T], None], result: T) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, result)
        except RuntimeError:
            # The loop is closed: nobody is left to be told.
            if not self._loop.is_closed():
                raise
