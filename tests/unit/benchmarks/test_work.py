"""The work itself, on an application that keeps its messages in memory."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from benchmarks.rivals.applications import work
from benchmarks.rivals.applications.application import (
    Acked,
    Application,
    Came,
    Consumer,
    Publisher,
    some_at_a_time,
)
from benchmarks.rivals.applications.work import Meter, Order, Patience, Stalled, percentiles_ms


class InMemory(Application, Publisher, Consumer):
    """Its own publisher and consumer. `lost`: so many messages never come."""

    def __init__(self, lost: int = 0) -> None:
        super().__init__("nowhere", "")
        self.stored: deque[bytes] = deque()
        self.published = 0
        self._lost = lost
        self._under_way = 0
        self.most_under_way = 0

    async def publish(self, batches: AsyncIterator[Sequence[bytes]], acked: Acked) -> None:
        await some_at_a_time(batches, self._store, acked, in_flight=3)

    async def publish_one(self, body: bytes) -> None:
        await self._store([body])

    async def consume(self, came: Came) -> None:
        while True:
            bodies = [self.stored.popleft() for _ in range(min(10, len(self.stored)))]
            if came(bodies):
                return
            await asyncio.sleep(0)

    @asynccontextmanager
    async def publisher(self, topic: str, *, prompt: bool) -> AsyncIterator[Publisher]:
        yield self

    @asynccontextmanager
    async def consumer(self, topic: str, group: str, *, prompt: bool) -> AsyncIterator[Consumer]:
        yield self

    async def _store(self, bodies: Sequence[bytes]) -> None:
        self._under_way += 1
        self.most_under_way = max(self.most_under_way, self._under_way)
        await asyncio.sleep(0)
        self._under_way -= 1
        self.published += len(bodies)
        self.stored.extend(bodies[self._lost :])
        self._lost = max(0, self._lost - len(bodies))


def order(kind: str, **changes: object) -> Order:
    return Order(kind, "nowhere", topics=["topic"], group="group", **changes)  # type: ignore[arg-type]


async def test_publish_counts_the_window_and_all_of_it() -> None:
    application = InMemory()
    result = await work.publish(application, order("publish", seconds=0.1, warmup_s=0.05))
    assert result["all"] == application.published
    assert 0 < result["counted"] <= result["all"]
    assert result["per_s"] == pytest.approx(result["counted"] / result["seconds"])
    assert all(len(body) == 1024 for body in application.stored)


async def test_so_many_batches_are_under_way_and_no_more() -> None:
    application = InMemory()
    await work.publish(application, order("publish", seconds=0.05))
    assert application.most_under_way == 3


async def test_a_batch_that_fails_ends_the_publishing() -> None:
    class Full(InMemory):
        async def _store(self, bodies: Sequence[bytes]) -> None:
            raise OSError("the disk is full")

    with pytest.raises(ExceptionGroup) as failed:
        await work.publish(Full(), order("publish", seconds=10))
    assert all(str(error) == "the disk is full" for error in failed.value.exceptions)


async def test_fill_publishes_just_so_many() -> None:
    application = InMemory()
    await work.fill(application, order("fill", messages=300))
    assert application.published == 300


async def test_consume_leaves_out_the_first_fifth() -> None:
    application = InMemory()
    application.stored.extend([b"body"] * 1000)
    result = await work.consume(application, order("consume", seconds=60, messages=1000))
    assert result["all"] == 1000
    assert result["counted"] == 800


async def test_consume_ends_with_its_time() -> None:
    application = InMemory()
    application.stored.extend([b"body"] * 1_000_000)
    result = await work.consume(application, order("consume", seconds=0.05, messages=1_000_000))
    assert 0 < result["counted"] < result["all"] < 1_000_000


async def test_messages_on_time_tell_how_old_they_are() -> None:
    application = InMemory()
    connected: list[bool] = []
    receiving = asyncio.ensure_future(
        work.receive_on_time(application, order("receive_on_time", messages=50), lambda: connected.append(True))
    )
    sent = await work.send_on_time(application, order("send_on_time", messages=50, rate_per_s=1000.0))
    received = await receiving
    assert connected == [True]
    assert sent["all"] == received["all"] == 50
    assert 0 <= received["p50_ms"] <= received["p99_ms"]


async def test_a_rate_above_one_a_tick_sends_several_a_tick() -> None:
    application = InMemory()
    await work.send_on_time(application, order("send_on_time", messages=1001, rate_per_s=50_000.0))
    assert application.published == 1001


async def test_a_lost_message_is_an_error_and_no_wait_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_STALL_S", 0.1)
    application = InMemory(lost=1)
    await work.fill(application, order("fill", messages=10))
    with pytest.raises(Stalled):
        await work.receive_on_time(application, order("receive_on_time", messages=10), lambda: None)


async def test_patience_ends_a_wait_in_which_nothing_comes() -> None:
    with pytest.raises(Stalled, match=r"no message for 0\.1 s"):
        await Patience(0.1).over(asyncio.Event().wait())


def test_nothing_measured_is_no_figure() -> None:
    with pytest.raises(Stalled):
        percentiles_ms([])
    meter = Meter()
    meter.begin()
    meter.end()
    with pytest.raises(Stalled):
        meter.result()


def test_percentiles() -> None:
    assert percentiles_ms([each / 1000 for each in range(100, 0, -1)]) == pytest.approx({"p50_ms": 51, "p99_ms": 100})
