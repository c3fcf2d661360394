"""When the log has nothing to do, an empty frame says that all before it is durable."""

import asyncio
from collections.abc import Callable


class IdleMark:
    """Calls `mark` once, `after_s` after the last commit, when `settled` says that all is durable."""

    def __init__(self, after_s: float, settled: Callable[[], bool], mark: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._after_s = after_s
        self._settled = settled
        self._mark = mark
        self._timer: asyncio.TimerHandle | None = None
        self._last_commit_s = 0.0
        # Whether something was appended that no later frame calls durable.
        self.needed = False

    def committed(self) -> None:
        """A group was committed. Cheap: one timer serves a whole busy time."""
        self._last_commit_s = self._loop.time()
        if self.needed and self._timer is None:
            self._timer = self._loop.call_later(self._after_s, self._check)

    def close(self) -> None:
        """No mark comes any more."""
        self.needed = False
        if self._timer:
            self._timer.cancel()

    def _check(self) -> None:
        self._timer = None
        if not self.needed:
            return
        wait_s = self._last_commit_s + self._after_s - self._loop.time()
        if not self._settled():
            wait_s = max(wait_s, self._after_s)
        if wait_s > 0:
            self._timer = self._loop.call_later(wait_s, self._check)
        else:
            self._mark()
