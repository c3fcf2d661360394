"""What the applications do, the same for each: publish, one at a time, consume, messages that tell how old they are."""

import asyncio
import os
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.rivals.applications.application import Application

BATCH = 128
"""Messages that the application has at hand at a time when it publishes as fast as it can."""
_TICK_S = 0.001
"""At higher rates than one a tick, so many messages as are due come in one."""
_STALL_S = 20.0
_SPIN_S = 0.0015
"""Loops wake up a millisecond late: what is due within so long is waited for by polling."""
_WARMUP_SHARE = 0.2
_STAMP = struct.Struct(">q")


@dataclass(frozen=True)
class Order:
    """One piece of work, as the benchmark orders it."""

    work: str
    address: str
    door: str = ""
    topics: Sequence[str] = ()
    group: str = ""
    body_bytes: int = 1024
    seconds: float = 1.0
    warmup_s: float = 0.0
    rate_per_s: float = 0.0
    messages: int = 0

    @property
    def topic(self) -> str:
        return self.topics[0]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Stalled(Exception):
    """Nothing came for long."""


class Meter:
    """Counts from when `begin` is called: how many, how long, and how busy this process was."""

    def __init__(self) -> None:
        self.count = 0
        self._mark: tuple[int, float, float] | None = None
        self._result: dict[str, float] | None = None

    def begin(self) -> None:
        self._mark = (self.count, time.monotonic(), time.process_time())

    @property
    def begun(self) -> bool:
        return self._mark is not None

    def end(self) -> None:
        assert self._mark is not None
        count, began, cpu_s = self._mark
        seconds = time.monotonic() - began
        self._result = {
            "per_s": (self.count - count) / seconds,
            "counted": self.count - count,
            "seconds": seconds,
            "client_busy": (time.process_time() - cpu_s) / seconds,
        }

    def result(self) -> dict[str, float]:
        """With `all`, what was counted before the begin and after the end, too."""
        if self._result is None or not self._result["counted"]:
            raise Stalled("nothing was acknowledged within the measured time")
        return {**self._result, "all": self.count}


async def publish(application: Application, order: Order) -> dict[str, float]:
    meter = Meter()

    def acked(count: int) -> None:
        meter.count += count

    async def batches() -> AsyncIterator[Sequence[bytes]]:
        batch = [os.urandom(order.body_bytes)] * BATCH
        begin = time.monotonic() + order.warmup_s
        end = begin + order.seconds
        while (now := time.monotonic()) < end:
            if now >= begin and not meter.begun:
                meter.begin()
            yield batch
        meter.end()

    async with application.publisher(order.topic, prompt=False) as publisher:
        await publisher.publish(batches(), acked)
    return meter.result()


async def fill(application: Application, order: Order) -> dict[str, float]:
    """Publishes so many messages."""

    async def batches() -> AsyncIterator[Sequence[bytes]]:
        body = os.urandom(order.body_bytes)
        for begin in range(0, order.messages, BATCH):
            yield [body] * min(BATCH, order.messages - begin)

    async with application.publisher(order.topic, prompt=False) as publisher:
        await publisher.publish(batches(), lambda _: None)
    return {}


async def one_at_a_time(application: Application, order: Order) -> dict[str, float]:
    body = os.urandom(order.body_bytes)
    meter = Meter()
    took_s: list[float] = []
    begin = time.monotonic() + order.warmup_s
    end = begin + order.seconds
    async with application.publisher(order.topic, prompt=True) as publisher:
        while (began := time.monotonic()) < end:
            if began >= begin and not meter.begun:
                meter.begin()
            await publisher.publish_one(body)
            if meter.begun:
                meter.count += 1
                took_s.append(time.monotonic() - began)
        meter.end()
    return {**meter.result(), **percentiles_ms(took_s)}


async def consume(application: Application, order: Order) -> dict[str, float]:
    """Until `seconds` are over or `messages` came; the first fifth of either is warm-up."""
    meter = Meter()
    patience = Patience()
    first: float | None = None
    enough = False

    def came(bodies: Sequence[bytes]) -> bool:
        nonlocal first, enough
        patience.check(bool(bodies))
        if enough or not bodies:
            return enough
        now = time.monotonic()
        first = now if first is None else first
        meter.count += len(bodies)
        done = max((now - first) / order.seconds, meter.count / order.messages)
        if not meter.begun:
            if done >= _WARMUP_SHARE:
                meter.begin()
        elif done >= 1:
            meter.end()
            enough = True
        return enough

    async with application.consumer(order.topic, order.group, prompt=False) as consumer:
        await patience.over(consumer.consume(came))
    return meter.result()


async def send_on_time(application: Application, order: Order) -> dict[str, float]:
    """Publishes `messages` at a rate, each with the time at which it was due, whether or not those before it are
    acknowledged: one that has to wait is charged for it."""
    per_tick = max(1, round(order.rate_per_s * _TICK_S))
    interval_s = per_tick / order.rate_per_s
    meter = Meter()

    def acked(count: int) -> None:
        meter.count += count

    async def batches() -> AsyncIterator[Sequence[bytes]]:
        rest = os.urandom(max(0, order.body_bytes - _STAMP.size))
        begin = time.monotonic() + interval_s
        for tick in range(-(-order.messages // per_tick)):
            due = begin + tick * interval_s
            await _until(due)
            yield [_STAMP.pack(int(due * 1e9)) + rest] * min(per_tick, order.messages - tick * per_tick)

    meter.begin()
    async with application.publisher(order.topic, prompt=True) as publisher:
        await publisher.publish(batches(), acked)
    meter.end()
    return meter.result()


async def _until(due: float) -> None:
    if (wait_s := due - time.monotonic() - _SPIN_S) > 0:
        await asyncio.sleep(wait_s)
    while time.monotonic() < due:  # noqa: ASYNC110 -- time is not an event
        await asyncio.sleep(0)  # others on the loop have their turn


async def receive_on_time(application: Application, order: Order, connected: Callable[[], None]) -> dict[str, float]:
    """Receives `messages` of `send_on_time`; those of the first `warmup_s` do not count."""
    took_s: list[float] = []
    patience = Patience()
    meter = Meter()

    def came(bodies: Sequence[bytes]) -> bool:
        patience.check(bool(bodies))
        now_ns = time.monotonic_ns()
        took_s.extend((now_ns - _STAMP.unpack_from(body)[0]) / 1e9 for body in bodies)
        if bodies and not meter.begun:
            meter.begin()
        meter.count = len(took_s)
        if bodies and len(took_s) >= order.messages:
            meter.end()
        return len(took_s) >= order.messages

    async with application.consumer(order.topic, order.group, prompt=True) as consumer:
        await asyncio.sleep(consumer.attentive_after_s)
        connected()
        await patience.over(consumer.consume(came))
    return {**meter.result(), **percentiles_ms(took_s[int(order.warmup_s * order.rate_per_s) :])}


async def first_message(application: Application, order: Order) -> dict[str, float]:
    """One message, there and back. -> when it came, by the clock that all processes of the machine share."""
    patience = Patience()
    received: list[float] = []

    def came(bodies: Sequence[bytes]) -> bool:
        patience.check(bool(bodies))
        if bodies and not received:
            received.append(time.monotonic())
        return bool(received)

    await application.create_topics(order.topics)
    async with application.publisher(order.topic, prompt=True) as publisher:
        await publisher.publish_one(os.urandom(order.body_bytes))
        async with application.consumer(order.topic, order.group, prompt=True) as consumer:
            await patience.over(consumer.consume(came))
    return {"at_s": received[0]}


class Patience:
    """Ends a wait for messages when none came for long, in libraries that block as well as in those that do not."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = _STALL_S if seconds is None else seconds
        self._until = time.monotonic() + self._seconds

    def check(self, something_came: bool) -> None:
        """Raises Stalled."""
        if something_came:
            self._until = time.monotonic() + self._seconds
        elif time.monotonic() > self._until:
            raise Stalled(f"no message for {self._seconds:g} s")

    async def over(self, wait: Any) -> None:
        waiting = asyncio.ensure_future(wait)
        while not (await asyncio.wait((waiting,), timeout=1))[0]:
            try:
                self.check(False)
            except Stalled:
                waiting.cancel()
                raise
        await waiting


def percentiles_ms(took_s: Sequence[float]) -> dict[str, float]:
    """Raises Stalled without any."""
    if not took_s:
        raise Stalled("nothing was measured")
    in_order = sorted(took_s)
    at = {name: in_order[min(int(len(in_order) * share), len(in_order) - 1)] for name, share in _PERCENTILES.items()}
    return {name: value * 1000 for name, value in at.items()}


_PERCENTILES = {"p50_ms": 0.5, "p99_ms": 0.99}
