"""Figures every process has: how late its event loop is, what it logged, which version it is."""

import asyncio
import platform
from collections.abc import Mapping
from importlib.metadata import version

from kourou_service.metrics.family import Family, counter, gauge, histogram
from kourou_service.metrics.histogram import Histogram

LAG_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
LAG_INTERVAL_S = 1.0


class LoopLag:
    """How late a timer fires: what a turn of the loop, or another process, keeps everybody waiting."""

    def __init__(self) -> None:
        self.late_s = Histogram(LAG_BOUNDS_S)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def family(self) -> Family:
        return histogram("kourou_event_loop_lag_seconds", "How late a timer of the event loop fires.", self.late_s)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(LAG_INTERVAL_S, self._fired, loop, loop.time() + LAG_INTERVAL_S)

    def _fired(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        self.late_s.observe(max(0.0, loop.time() - due_s))
        self._arm(loop)


def build_info(engine: str) -> Family:
    values = (version("kourou-server"), engine, platform.python_version())
    return gauge("kourou_build_info", "Always 1.", {values: 1}, ("version", "engine", "python"))


def log_messages(counts: Mapping[str, int]) -> Family:
    rows = [((level,), count) for level, count in counts.items()]
    return counter("kourou_log_messages_total", "Lines logged.", rows, ("level",))
