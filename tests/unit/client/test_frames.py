"""How messages are cut into frames, counted while they wait, and named when they are settled."""

import asyncio
from concurrent.futures import Future
from itertools import chain, pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kourou import Message
from kourou.frame import Bulk
from kourou.memory import OVERHEAD_BYTES, Memory
from kourou.results import Outcome, SendResult
from kourou.room import Room
from kourou.settling import ranges_of

sizes = st.lists(st.integers(1, 300), min_size=1, max_size=200)


@given(sizes, st.integers(1, 400), st.integers(1, 30))
def test_many_messages_are_cut_in_their_order_within_the_limits(sizes, max_bytes, max_count):
    messages = [Message("t", b"x" * size) for size in sizes]
    future: Future[list[Any]] = Future()
    bulk = Bulk(messages, future, 1.0)
    frames: list[list[Message]] = []
    while bulk.has_rest:
        start, count = bulk.next_share(max_count, max_bytes)
        assert start == sum(map(len, frames))
        share, share_bytes = bulk.take(count or 1)
        assert share_bytes == sum(message.size_bytes for message in share)
        assert len(share) == 1 or (share_bytes <= max_bytes and len(share) <= max_count)
        if bulk.has_rest and count:
            following = messages[start + len(share)].size_bytes
            assert len(share) == max_count or share_bytes + following > max_bytes, "it is as full as it can be"
        frames.append(list(share))
    assert list(chain.from_iterable(frames)) == messages

    def result(number: int) -> SendResult:
        return SendResult(str(number), None, "t", "b", 0, number)

    places = list(range(len(messages)))
    start = 0
    for frame in frames:
        outcomes: list[Outcome] = [result(number) for number in places[start : start + len(frame)]]
        assert not future.done()
        bulk.settle(start, outcomes)
        start += len(frame)
    assert [each.offset for part in future.result() for each in part] == places


@given(st.lists(st.integers(0, 60), max_size=40))
def test_ranges_say_what_offsets_say_in_as_few_as_can_be(offsets):
    ranges = ranges_of(offsets)
    said = [offset for each in ranges for offset in range(each.first, each.first + each.count)]
    assert said == sorted(set(offsets))
    assert all(one.first + one.count < other.first for one, other in pairwise(ranges))


async def test_who_waits_for_memory_is_let_in_when_there_is_some():
    memory = Memory(2 * OVERHEAD_BYTES)
    message = Message("t", b"x")
    memory.take(message)
    assert not memory.is_full
    memory.take(message)
    assert memory.is_full
    waiting = [asyncio.create_task(memory.room()) for _ in range(2)]
    given_up = asyncio.create_task(memory.room())
    await asyncio.sleep(0)
    given_up.cancel()
    memory.release(message)
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert not memory.is_full


async def test_room_of_a_cache_by_count_bytes_and_a_lower_count():
    room = Room(10, 100)
    room.take(5, 10)
    await room.wait()
    low = asyncio.create_task(room.wait(3))
    await asyncio.sleep(0)
    assert not low.done()
    room.take(5, 10)
    high = asyncio.create_task(room.wait())
    await asyncio.sleep(0)
    room.release(1, 2)
    await asyncio.wait_for(high, 5)
    room.release(7, 8)
    await asyncio.wait_for(low, 5)
    room.take(1, 200)
    full = asyncio.create_task(room.wait())
    await asyncio.sleep(0)
    assert not full.done()
    room.release(1, 200)
    await asyncio.wait_for(full, 5)
