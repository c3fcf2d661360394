import asyncio
from dataclasses import dataclass

import pytest

from kourou.coalescer import Coalescer, Limits
from tests.unit.client.fake import until


@dataclass
class Item:
    value: int
    count: int = 1
    size_bytes: int = 1


class Sink:
    """Takes batches and answers each with the item's value when the gate is open."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()

    async def send(self, items: list[Item]) -> list[int | Exception]:
        self.batches.append([item.value for item in items])
        await self.gate.wait()
        return [ValueError("odd one") if item.value == 13 else item.value for item in items]


async def test_what_arrives_while_requests_are_under_way_shares_the_next():
    sink = Sink()
    lane = Coalescer(sink.send, Limits(max_in_flight=1, max_count=3, max_bytes=100))
    first = lane.submit(Item(0))
    await until(lambda: sink.batches)
    rest = [lane.submit(Item(i)) for i in range(1, 6)]
    sink.gate.set()
    assert await asyncio.gather(first, *rest) == [0, 1, 2, 3, 4, 5]
    assert sink.batches == [[0], [1, 2, 3], [4, 5]]


async def test_bytes_count_and_a_large_item_travels_alone():
    sink = Sink()
    sink.gate.set()
    lane = Coalescer(sink.send, Limits(max_in_flight=1, max_count=10, max_bytes=10))
    items = [Item(1, size_bytes=6), Item(2, size_bytes=4), Item(3, size_bytes=50), Item(4, size_bytes=6), Item(5, 1, 6)]
    await asyncio.gather(*map(lane.submit, items))
    assert sink.batches == [[1, 2], [3], [4], [5]]


async def test_each_item_has_its_own_outcome():
    sink = Sink()
    sink.gate.set()
    lane = Coalescer(sink.send, Limits(max_in_flight=1, max_count=10, max_bytes=10))
    good, bad = lane.submit(Item(1)), lane.submit(Item(13))
    assert await good == 1
    with pytest.raises(ValueError, match="odd one"):
        await bad


async def test_a_failed_request_fails_all_its_items():
    async def fail(items: list[Item]) -> list[int]:
        raise OSError("broken")

    lane = Coalescer(fail, Limits(max_in_flight=1, max_count=10, max_bytes=10))
    outcomes = await asyncio.gather(lane.submit(Item(1)), lane.submit(Item(2)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["broken", "broken"]


async def test_a_cancelled_item_never_leaves():
    sink = Sink()
    lane = Coalescer(sink.send, Limits(max_in_flight=1, max_count=10, max_bytes=10))
    first = lane.submit(Item(0))
    await until(lambda: sink.batches)
    second, third = lane.submit(Item(1)), lane.submit(Item(2))
    second.cancel()
    sink.gate.set()
    assert await asyncio.gather(first, third) == [0, 2]
    assert sink.batches == [[0], [2]]


async def test_drain_and_close():
    sink = Sink()
    lane = Coalescer(sink.send, Limits(max_in_flight=1, max_count=1, max_bytes=10))
    results = [lane.submit(Item(i)) for i in range(3)]
    drained = asyncio.create_task(lane.drain())
    await until(lambda: sink.batches)
    assert not drained.done()
    sink.gate.set()
    await drained
    assert [result.result() for result in results] == [0, 1, 2]
    sink.gate.clear()
    late = [lane.submit(Item(i)) for i in range(3)]
    await lane.close()
    assert all(result.cancelled() for result in late)


async def test_it_says_when_it_is_idle_also_after_what_was_cancelled_before_it_left():
    sink, idle = Sink(), list[bool]()
    lane = Coalescer(sink.send, Limits(max_in_flight=1, max_count=1, max_bytes=10), on_idle=lambda: idle.append(True))
    first, second = lane.submit(Item(1)), lane.submit(Item(2))
    await until(lambda: sink.batches)
    assert idle == []
    sink.gate.set()
    await asyncio.gather(first, second)
    await until(lambda: idle == [True])
    lane.submit(Item(3)).cancel()
    await until(lambda: idle == [True, True])
    assert sink.batches == [[1], [2]]
