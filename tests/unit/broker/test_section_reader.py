"""Sections on their way from the disk: read once for all who wait."""

import asyncio
from typing import cast

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.log import Log
from kourou_broker.log.section import MESSAGE_ROW, SECTION_HEADER, Entry
from kourou_broker.operations.section_reader import SectionReader
from kourou_broker.state import records

_SECTION = records.messages(definition_pb2.NORMAL, 1, 0, 7, [MESSAGE_ROW.pack(4, 1, 0)], [b"headt"])
_DATA = (
    SECTION_HEADER.pack(_SECTION.kind, _SECTION.type, 0, 1, 0, 7, 1, len(_SECTION.payload)) + _SECTION.payload
)  # fmt: skip
_ENTRY = Entry(7, 1, 100, len(_DATA), 5)


class _SlowLog:
    """One section, which the disk gives when it is let."""

    def __init__(self) -> None:
        self.reads = 0
        self.goes_on = asyncio.Event()
        self.error: OSError | None = None

    def read_now(self, position: int, length: int) -> bytes | None:
        return None

    async def read(self, position: int, length: int) -> bytes:
        assert (position, length) == (_ENTRY.position, _ENTRY.length)
        self.reads += 1
        await self.goes_on.wait()
        if self.error is not None:
            raise self.error
        return _DATA


async def test_all_who_wait_share_one_read_and_what_it_gave() -> None:
    log = _SlowLog()
    reader = SectionReader(cast("Log", log))
    waiting = [asyncio.ensure_future(reader.read(_ENTRY)) for _ in range(10)]
    await asyncio.sleep(0)
    waiting.pop().cancel()  # one goes: the others wait on
    log.goes_on.set()
    sections = await asyncio.gather(*waiting)
    assert {id(section) for section in sections} == {id(reader.cached(_ENTRY))}
    assert (sections[0].message(0).head, sections[0].message(0).offset) == (b"head", 7)
    assert log.reads == 1


async def test_who_waits_hears_of_an_error_and_who_comes_later_reads_again() -> None:
    log = _SlowLog()
    log.error = OSError("the disk is broken")
    log.goes_on.set()
    reader = SectionReader(cast("Log", log))
    results = await asyncio.gather(*(reader.read(_ENTRY) for _ in range(3)), return_exceptions=True)
    assert results == [log.error] * 3
    with pytest.raises(OSError, match="broken"):
        await reader.read(_ENTRY)
    log.error = None
    assert (await reader.read(_ENTRY)).message(0).tail == b"t"
