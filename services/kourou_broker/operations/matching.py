"""A queue's messages through a filter, a section after the other: what deliveries and pulls have in common."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from kourou_broker.log.section import Entry
from kourou_broker.operations.filters import Filter
from kourou_broker.operations.section_reader import BatchSection, MessageSection, Run, SectionReader, StoredMessage
from kourou_broker.state.definitions import Queue

MAX_BATCH_BYTES = 8 * 1024 * 1024
_SLICE = 2000
"""So much is done before the loop gets its turn, in units of half a microsecond. It is reckoned and not measured, so
that a simulation goes the same way each time."""
_SECTION_COST = 100
_BYTES_A_UNIT = 1024
"""Of a message that is cut out and parsed."""


class Matched(NamedTuple):
    messages: list[StoredMessage]
    next_offset: int
    """Where to go on: past what the filter left out."""


class MatchingReader:
    """Keeps where a queue is being read: one section often fills several answers."""

    def __init__(self, reader: SectionReader) -> None:
        self._reader = reader
        self._at: dict[int, Entry] = {}

    async def read(
        self,
        queue: Queue,
        offset: int,
        filter_: Filter,
        room: int,
        room_bytes: int = MAX_BATCH_BYTES,
        in_haste: Callable[[], bool] = lambda: False,
        *,
        up_to_batch: bool = False,
    ) -> Matched:
        """Up to room messages that match, from offset on; fewer when they are large, or when somebody is in haste.

        up_to_batch: a batch is left to `run`.
        """
        messages: list[StoredMessage] = []
        spent = 0
        while len(messages) < room and room_bytes > 0:
            section = await self._section(queue, offset)
            if section is None or (up_to_batch and isinstance(section, BatchSection)):
                break
            offset = max(offset, section.base)
            end = section.base + section.count
            spent += _SECTION_COST
            while offset < end and len(messages) < room and room_bytes > 0 and spent < _SLICE:
                place = offset - section.base
                offset += 1
                spent += 1
                if not filter_.may_match(section.tag_hash(place)):
                    continue  # the hash in the section's table spares most messages from being cut out
                message = section.message(place)
                if not filter_.all:
                    spent += filter_.cost + len(message.head) // _BYTES_A_UNIT
                    if not filter_.matches(message):
                        continue
                messages.append(message)
                room_bytes -= len(message.head)
            if offset == end:
                self._at.pop(queue.id, None)
            if spent >= _SLICE:
                spent = 0
                await asyncio.sleep(0)
                if in_haste():
                    break
        return Matched(messages, offset)

    async def run(self, queue: Queue, offset: int, room: int) -> Run | None:
        """Up to room messages from offset on, if a batch holds them; whether they match is not looked at."""
        section = await self._section(queue, offset)
        if not isinstance(section, BatchSection):
            return None
        first = max(offset - section.base, 0)
        count = min(section.count - first, room)
        if first + count == section.count:
            self._at.pop(queue.id, None)
        return Run(section, first, count)

    async def _section(self, queue: Queue, offset: int) -> MessageSection | None:
        reader = self._reader
        entry = self._at.get(queue.id)
        if entry is None or not entry.base <= offset < entry.base + entry.count:
            entry = reader.find(queue, offset) if offset < queue.next_offset else None
            if entry is None:
                self._at.pop(queue.id, None)
                return None
            self._at[queue.id] = entry
        return reader.cached(entry) or await reader.read(entry)
