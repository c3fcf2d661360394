"""A queue's messages through a filter, a section after the other: what deliveries and pulls have in common."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from kourou_broker.operations.section_reader import MessageSection, SectionReader, StoredMessage
from kourou_broker.operations.tag_filter import TagFilter
from kourou_broker.state.definitions import Queue

MAX_BATCH_BYTES = 8 * 1024 * 1024
_SECTIONS_A_SLICE = 16
"""So many sections are filtered before the loop gets its turn."""


class Matched(NamedTuple):
    messages: list[StoredMessage]
    next_offset: int
    """Where to go on: past what the filter left out."""


class MatchingReader:
    """Keeps the section that a queue is being read from: one section often fills several answers."""

    def __init__(self, reader: SectionReader) -> None:
        self._reader = reader
        self._open: dict[int, MessageSection] = {}

    async def read(
        self,
        queue: Queue,
        offset: int,
        tags: TagFilter,
        room: int,
        room_bytes: int = MAX_BATCH_BYTES,
        in_haste: Callable[[], bool] = lambda: False,
    ) -> Matched:
        """Up to room messages that match, from offset on; fewer when they are large, or when somebody is in haste."""
        messages: list[StoredMessage] = []
        sections = 0
        while len(messages) < room and room_bytes > 0:
            section = await self._section(queue, offset)
            if section is None:
                break
            offset = max(offset, section.base)
            end = section.base + section.count
            while offset < end and len(messages) < room and room_bytes > 0:
                message = _match(section, offset - section.base, tags)
                offset += 1
                if message is not None:
                    messages.append(message)
                    room_bytes -= len(message.head)
            if offset == end:
                self._open.pop(queue.id, None)
            sections += 1
            if sections % _SECTIONS_A_SLICE == 0:
                await asyncio.sleep(0)
                if in_haste():
                    break
        return Matched(messages, offset)

    async def _section(self, queue: Queue, offset: int) -> MessageSection | None:
        section = self._open.get(queue.id)
        if section is not None and section.base <= offset < section.base + section.count:
            return section
        reader = self._reader
        entry = reader.find(queue, offset) if offset < queue.next_offset else None
        if entry is None:
            self._open.pop(queue.id, None)
            return None
        section = self._open[queue.id] = reader.cached(entry) or await reader.read(entry)
        return section


def _match(section: MessageSection, place: int, tags: TagFilter) -> StoredMessage | None:
    """The hash in the section's table spares most messages from being cut out."""
    if not tags.may_match(section.tag_hash(place)):
        return None
    message = section.message(place)
    return message if tags.matches(message) else None
