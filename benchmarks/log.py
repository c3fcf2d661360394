"""What the log costs: frames and bytes a second beside a raw fdatasync of the same sizes, loop time a frame, recovery.

python benchmarks/log.py [--data FOLDER] [--seconds 3] [--recovery-gb 2]
"""

import argparse
import asyncio
import gc
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from kourou_broker.log.file_medium import FileMedium
from kourou_broker.log.log import Log
from kourou_broker.log.options import LogOptions
from kourou_broker.log.section import Section
from kourou_broker.log.worker import ThreadWorker

MESSAGE_BYTES = 1126  # a 1 KiB body and its properties
MAX_PENDING_BYTES = 32 << 20
MIB = 1 << 20


class OpenLog:
    """A log on a real folder, with its threads."""

    def __init__(self, folder: Path, options: LogOptions, apply=lambda frame: None) -> None:
        self.medium = FileMedium(folder)
        self.workers = [ThreadWorker(name) for name in ("commit", "read", "background")]
        commit, read, background = self.workers
        self.log = Log.recover(self.medium, commit, options, 0, apply, reader=read, background=background)

    async def close(self) -> None:
        await self.log.close()
        for worker in self.workers:
            worker.close()
        self.medium.close()


def raw_sync(folder: Path, size_bytes: int, seconds: float) -> list[float]:
    """Seconds of each write and fdatasync of that size, one after the other, into a pre-written file."""
    medium = FileMedium(folder)
    medium.prepare(64 * MIB)
    medium.create(0, 64 * MIB)
    data, took, offset = os.urandom(size_bytes), [], 0
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        medium.write(0, offset, [data])
        medium.sync(0)
        took.append(time.perf_counter() - start)
        offset = (offset + size_bytes) % (63 * MIB)
    medium.close()
    return took


async def appends(folder: Path, messages: int, seconds: float, turn_frames: int) -> tuple[int, float, list[float]]:
    """Frames appended in some seconds, the loop's processor time a frame, and the seconds from append to durable.

    `turn_frames` frames wait for each other: 1 is a lone producer; 0 keeps the log busy all the time.
    """
    opened = OpenLog(folder, LogOptions())
    log, latencies = opened.log, []
    payload = os.urandom(messages * MESSAGE_BYTES)
    waiting: list[tuple[int, float]] = []
    durable = asyncio.Event()

    def on_durable(position: int) -> None:
        now = time.perf_counter()
        while waiting and waiting[0][0] <= position:
            latencies.append(now - waiting.pop(0)[1])
        durable.set()

    log.on_durable = on_durable
    frames, cpu = 0, time.thread_time()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(turn_frames or 4):
            start = time.perf_counter()
            queue = frames % 8
            appended = log.append([Section(1, 1, 1, queue, frames * messages, messages, payload)], frames)
            waiting.append((appended.end, start))
            frames += 1
        while log.pending_bytes > (0 if turn_frames else MAX_PENDING_BYTES):
            durable.clear()
            await durable.wait()
        await asyncio.sleep(0)
    cpu = time.thread_time() - cpu
    await opened.close()
    return frames, cpu / frames, latencies


async def loop_time(folder: Path, messages: int, frames: int) -> tuple[float, float]:
    """Wall seconds of the call to append alone, with the worker idle and with it busy: medians."""
    opened = OpenLog(folder, LogOptions())
    payload = os.urandom(messages * MESSAGE_BYTES)
    idle, busy = [], []
    for number in range(frames):
        for took in (idle, busy):
            start = time.perf_counter()
            opened.log.append([Section(1, 1, 1, number % 8, number * messages, messages, payload)], number)
            took.append(time.perf_counter() - start)
        while opened.log.pending_bytes:  # noqa: ASYNC110
            await asyncio.sleep(0.0005)
    await opened.close()
    return statistics.median(idle), statistics.median(busy)


async def recovery(folder: Path, gigabytes: float, messages: int) -> None:
    """Write a log of that size and time how long a start takes that verifies all of it."""
    opened = OpenLog(folder, LogOptions(flush="async"))
    payload = os.urandom(messages * MESSAGE_BYTES)
    frames = 0
    while opened.log.next_position < gigabytes * 1e9:
        opened.log.append([Section(1, 1, 1, frames % 8, frames * messages, messages, payload)], frames)
        frames += 1
        while opened.log.pending_bytes > MAX_PENDING_BYTES:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await opened.close()
    for what in ("with indexes", "indexes deleted"):
        if what == "indexes deleted":
            for index in (folder / "blobs").iterdir():
                index.unlink()
        seen = 0

        def apply(_: object) -> None:
            nonlocal seen
            seen += 1

        start = time.perf_counter()
        again = OpenLog(folder, LogOptions(), apply)
        took = time.perf_counter() - start
        size = again.log.next_position
        print(f"recovery of {size / 1e9:.2f} GB, {seen} frames of {messages} messages, {what}: {took:.2f} s")
        await again.close()


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[int(len(values) * part)] * 1e6


async def main(data: Path | None, seconds: float, gigabytes: float) -> None:
    root = Path(tempfile.mkdtemp(prefix="kourou-log-", dir=data))
    gc.freeze()
    try:
        for messages in (1, 20, 200):
            size = messages * MESSAGE_BYTES
            raw = raw_sync(root / f"raw-{messages}", size, seconds)
            rate = len(raw) / sum(raw)
            print(
                f"{messages:4} x 1.1 KiB  raw write + fdatasync: {rate:7.0f} /s {rate * size / MIB:6.0f} MiB/s  "
                f"p50 {percentile(raw, 0.5):6.0f} us  p99 {percentile(raw, 0.99):6.0f} us"
            )
            for what, turn in (("one by one", 1), ("16 a turn", 16), ("saturated", 0)):
                frames, cpu, latencies = await appends(root / f"{messages}-{turn}", messages, seconds, turn)
                rate = frames / seconds
                print(
                    f"                  log, {what:10}: {rate:14.0f} /s {rate * size / MIB:6.0f} MiB/s  "
                    f"p50 {percentile(latencies, 0.5):6.0f} us  p99 {percentile(latencies, 0.99):6.0f} us  "
                    f"loop {cpu * 1e6:4.0f} us/frame"
                )
            idle, busy = await loop_time(root / f"call-{messages}", messages, 500)
            print(f"                  append() itself: {idle * 1e6:.0f} us (worker idle), {busy * 1e6:.0f} us (busy)")
            shutil.rmtree(root)
            root.mkdir()  # noqa: ASYNC240
        for messages in (1, 20):
            await recovery(root / f"recovery-{messages}", gigabytes, messages)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="an existing folder on the disk to be measured")
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--recovery-gb", type=float, default=2)
    options = parser.parse_args()
    asyncio.run(main(options.data, options.seconds, options.recovery_gb))
