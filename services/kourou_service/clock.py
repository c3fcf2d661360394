"""Wall-clock time behind an interface, so that a simulation can own it.

Durations and timers are not here: they come from the running asyncio loop (`loop.time()`, `loop.call_later`).
"""

import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        ...


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000
