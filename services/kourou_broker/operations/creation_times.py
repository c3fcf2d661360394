"""How long it took to make or change topics and groups, until it was durable."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from kourou_service.metrics.histogram import Histogram

_BOUNDS_MS = (10, 100, 1000, 3000, 5000)


class Outcomes:
    """Times in milliseconds."""

    def __init__(self) -> None:
        self.success = Histogram(_BOUNDS_MS)
        self.failure = Histogram(_BOUNDS_MS)

    @contextmanager
    def timed(self) -> Generator[None]:
        """Around one attempt."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        outcome = self.failure
        try:
            yield
            outcome = self.success
        finally:
            outcome.observe((loop.time() - began_s) * 1000)


class CreationTimes:
    def __init__(self) -> None:
        self.topics = Outcomes()
        self.system_topics = Outcomes()
        self.groups = Outcomes()
