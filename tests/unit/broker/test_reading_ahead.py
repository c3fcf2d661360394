"""Sections out of pieces of the log: always what the log has, whoever else reads and whatever fails."""

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kourou_broker.log.log import Log
from kourou_broker.operations.reading_ahead import PIECE_BYTES, ReadingAhead

_SEGMENT_BYTES = 3 * PIECE_BYTES
_CONTENT = bytes(range(251)) * (8 * PIECE_BYTES // 251)


class _Log:
    """What is durable of a log, in segments."""

    def __init__(self, durable: int) -> None:
        self.durable = durable
        self.reads: list[tuple[int, int]] = []
        self.error: Exception | None = None

    def readable_end(self, position: int) -> int:
        return min(self.durable, (position // _SEGMENT_BYTES + 1) * _SEGMENT_BYTES)

    async def read(self, position: int, length: int) -> bytes:
        assert position + length <= self.readable_end(position)
        self.reads.append((position, length))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return _CONTENT[position : position + length]


def _ahead(log: _Log) -> ReadingAhead:
    return ReadingAhead(cast("Log", log))


@given(
    st.lists(
        st.tuples(st.integers(0, 6 * PIECE_BYTES), st.integers(1, 2 * PIECE_BYTES), st.integers(0, 50_000)),
        min_size=1,
        max_size=60,
    )
)
def test_what_is_read_is_what_the_log_has(steps: list[tuple[int, int, int]]) -> None:
    async def read_all() -> None:
        log = _Log(durable=PIECE_BYTES)
        ahead = _ahead(log)
        for position, length, grown in steps:
            log.durable = min(log.durable + grown, len(_CONTENT))
            at = position % log.durable
            length = min(length, log.readable_end(at) - at)
            assert await ahead.read(at, length) == _CONTENT[at : at + length]

    asyncio.run(read_all())


async def test_many_who_want_the_same_read_it_once() -> None:
    log = _Log(durable=_SEGMENT_BYTES)
    ahead = _ahead(log)
    wanted = [(number % 10 * 1000, 1000) for number in range(100)]
    found = await asyncio.gather(*(ahead.read(*each) for each in wanted))
    assert found == [_CONTENT[at : at + length] for at, length in wanted]
    assert log.reads == [(0, PIECE_BYTES)]


async def test_one_who_gives_up_takes_nothing_from_the_others() -> None:
    ahead = _ahead(_Log(durable=_SEGMENT_BYTES))
    one, other = (asyncio.ensure_future(ahead.read(0, 100)) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    assert await other == _CONTENT[:100]


async def test_what_failed_is_read_again() -> None:
    log = _Log(durable=_SEGMENT_BYTES)
    ahead = _ahead(log)
    log.error = OSError("the disk is broken")
    with pytest.raises(OSError, match="broken"):
        await ahead.read(0, 100)
    log.error = None
    assert await ahead.read(0, 100) == _CONTENT[:100]
