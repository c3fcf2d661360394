"""A log on a simulated disk, and what the tests of the log say often."""

import asyncio
import random
from typing import Any

from kourou_broker.log.frame import Frame
from kourou_broker.log.log import Log
from kourou_broker.log.options import LogOptions
from kourou_broker.log.section import Section, SectionKind
from tests.simulation.disk import SimDisk, SimMedium, SimWorker

SEGMENT_BYTES = 4096


class LogOnDisk:
    """A disk, and the log that was opened on it last."""

    def __init__(self, seed: int = 0, capacity_bytes: int = 1 << 40) -> None:
        self.disk = SimDisk(random.Random(seed), capacity_bytes)
        self.durable: list[int] = []
        self.failures: list[BaseException] = []
        self.frames: list[Frame] = []

    def open(self, start: int = 0, worker: SimWorker | None = None, **options: Any) -> Log:
        """Recover the log, as a new process; the frames that were given to `apply` are in `frames`."""
        self.disk.kill()
        self.medium = SimMedium(self.disk)
        self.frames, self.durable, self.failures = [], [], []
        settings: dict[str, Any] = {"segment_bytes": SEGMENT_BYTES, "disk_watermark_bytes": 0, **options}
        self.log = Log.recover(
            self.medium,
            worker or SimWorker(),
            LogOptions(**settings),
            start,
            self.frames.append,
            background=SimWorker(),
            reader=SimWorker(),
        )
        self.log.on_durable = self.durable.append
        self.log.on_failure = self.failures.append
        return self.log

    def payloads(self) -> list[bytes]:
        """Of all sections that recovery gave."""
        return [section.payload for frame in self.frames for section in frame.sections]


def messages(queue: int, base: int, count: int = 1, payload: bytes = b"message", topic: int = 7) -> Section:
    return Section(SectionKind.MESSAGES, 1, topic, queue, base, count, payload)


def record(payload: bytes) -> Section:
    return Section(9, 2, 0, 0, 0, 0, payload)


async def settled(log: Log) -> None:
    """Until all is durable."""
    while log.pending_bytes:  # noqa: ASYNC110 (simulated time costs nothing)
        await asyncio.sleep(0.001)


async def fill(log: Log, frames: int, payload_bytes: int = 300, queues: int = 3, first: int = 0) -> None:
    """Frames of one section of 2 messages each, over some queues in turn, each made durable, stored a second apart."""
    for number in range(first, first + frames):
        section = messages(number % queues, number // queues * 2, 2, bytes([number % 256]) * payload_bytes)
        log.append([section], 1_000 * (number + 1))
        await settled(log)
