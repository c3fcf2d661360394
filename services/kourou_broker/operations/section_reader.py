"""Stored messages out of their sections."""

from array import array
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from kourou_broker.log.errors import Dropped
from kourou_broker.log.log import Log
from kourou_broker.log.section import MESSAGE_ROW, SECTION_HEADER, SECTION_HEADER_BYTES, Entry, Section, parse_section
from kourou_broker.state import records
from kourou_broker.state.definitions import Queue
from kourou_broker.state.half_messages import HalfMessage

_READ_WHOLE_BYTES = 64 * 1024
"""A section of held messages up to this size is read in one piece."""


class StoredMessage(NamedTuple):
    offset: int
    head: bytes
    """The Message without system_properties."""
    tail: bytes
    """Its SystemProperties as they were sent."""
    tag_hash: int
    stored_ms: int
    position: int
    """Of the section in the log; with the place it names the message for good."""
    place: int


class MessageSection:
    """The messages of one section, cut out one by one when asked for."""

    __slots__ = ("_ends", "_payload", "_rows", "base", "count", "position", "stored_ms")

    def __init__(self, section: Section, position: int, stored_ms: int, payload: bytes) -> None:
        self.base = section.base
        self.count = section.count
        self.position = position
        self.stored_ms = stored_ms
        self._payload = payload
        table = section.count * MESSAGE_ROW.size
        self._rows = list(MESSAGE_ROW.iter_unpack(payload[:table]))
        self._ends = list(accumulate((head + tail for head, tail, _hash in self._rows), initial=table))

    def tag_hash(self, index: int) -> int:
        return self._rows[index][2]

    def message(self, index: int) -> StoredMessage:
        start, end = self._ends[index], self._ends[index + 1]
        middle = start + self._rows[index][0]
        payload = self._payload
        return StoredMessage(
            self.base + index,
            payload[start:middle],
            payload[middle:end],
            self._rows[index][2],
            self.stored_ms,
            self.position,
            index,
        )


class _HeldSection:
    """The tables at the beginning of the payload of held messages."""

    __slots__ = ("_ends", "_rows", "_stored_ms")

    def __init__(self, payload: bytes, table_at: int, count: int) -> None:
        table_end = table_at + count * MESSAGE_ROW.size
        self._stored_ms = array("Q", payload[table_at - 8 * count : table_at])
        self._rows = list(MESSAGE_ROW.iter_unpack(payload[table_at:table_end]))
        self._ends = list(accumulate((head + tail for head, tail, _hash in self._rows), initial=table_end))

    def range(self, index: int) -> tuple[int, int]:
        """Where the message lies in the payload."""
        return self._ends[index], self._ends[index + 1]

    def message(self, position: int, index: int, data: bytes) -> StoredMessage:
        head, _tail, tag_hash = self._rows[index]
        return StoredMessage(-1, data[:head], data[head:], tag_hash, self._stored_ms[index], position, index)


class SectionReader:
    """Finds and reads what a queue holds. Only what is on the disk is found."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def find(self, queue: Queue, offset: int) -> Entry | None:
        """The section that holds the offset, or the first one after it."""
        entry = self._log.find(queue.topic.id, queue.id, offset)
        return entry if entry is not None and entry.position < self._log.durable_position else None

    def cached(self, entry: Entry) -> MessageSection | None:
        """The section, if reading it takes no time."""
        data = self._log.cached(entry.position, entry.length)
        return None if data is None else self._section(data, entry.position, entry.stored_ms)

    async def read(self, entry: Entry) -> MessageSection:
        return self._section(await self._log.read(entry.position, entry.length), entry.position, entry.stored_ms)

    async def message(self, queue: Queue, offset: int) -> StoredMessage | None:
        """One message by its offset, its carried copy if its segment is gone; None if it is not there any more."""
        copy = queue.carried.get(offset)
        if copy is not None and offset < queue.first_offset:
            data = await self._log.read(copy.position, copy.length)
            section, _end = parse_section(data, 0, copy.position)
            stored_ms, message = records.read_carry(section)
            return MessageSection(section, copy.position, stored_ms, message).message(0)
        entry = self.find(queue, offset)
        if entry is None or not entry.base <= offset < entry.base + entry.count:
            return None
        section = self.cached(entry) or await self.read(entry)
        return section.message(offset - entry.base)

    async def messages(self, queue: Queue, offsets: Iterable[int]) -> AsyncIterator[tuple[int, StoredMessage | None]]:
        """Each offset with what `message` says; of ascending ones that lie in one section it is taken apart once."""
        section: MessageSection | None = None
        for offset in offsets:
            if section is None or not section.base <= offset < section.base + section.count:
                entry = self.find(queue, offset) if offset >= queue.first_offset else None
                section = None if entry is None else self.cached(entry) or await self.read(entry)
            if section is not None and section.base <= offset < section.base + section.count:
                yield offset, section.message(offset - section.base)
            else:
                yield offset, await self.message(queue, offset)

    async def held(self, position: int, index: int) -> StoredMessage | None:
        """One message of a HELD or HELD_CARRIED section; None if its segment is gone. It has no offset: -1."""
        return next(iter(await self.held_all(position, [index])), None)

    async def held_all(self, position: int, indexes: Sequence[int]) -> list[StoredMessage]:
        """The same for several messages of one section: all of them or, if it is gone, none.

        Of a section that is long only what is wanted is read: many messages come in one and fall due one by one.
        """
        header_end = position + SECTION_HEADER_BYTES
        if position < self._log.first_position or header_end > self._log.durable_position:
            return []
        header = await self._log.read(position, SECTION_HEADER_BYTES)
        kind, _type, _, _topic, _queue, _base, count, length = SECTION_HEADER.unpack(header)
        if kind not in records.HELD_KINDS or count <= max(indexes):
            return []
        table_at = records.held_table_at(kind, count)
        if length <= _READ_WHOLE_BYTES or len(indexes) * 4 >= count:
            payload = await self._log.read(header_end, length)
            section = _HeldSection(payload, table_at, count)
            return [section.message(position, index, payload[slice(*section.range(index))]) for index in indexes]
        section = _HeldSection(await self._log.read(header_end, table_at + count * MESSAGE_ROW.size), table_at, count)
        found: list[StoredMessage] = []
        for index in indexes:
            start, end = section.range(index)
            found.append(section.message(position, index, await self._log.read(header_end + start, end - start)))
        return found

    async def half(self, half: HalfMessage) -> StoredMessage | None:
        """The message of an open transaction; retention may move it while it is read."""
        place = half.place
        try:
            message = await self.held(*place)
        except Dropped:
            message = None
        if message is None and place != half.place:
            message = await self.held(*half.place)
        return message

    async def stored_ms(self, queue: Queue, offset: int) -> int | None:
        """When the message at the offset, or the first one after it, was stored; None if nothing is there."""
        copy = queue.carried.get(offset)
        if copy is not None and offset < queue.first_offset:
            payload = await self._log.read(copy.position + SECTION_HEADER_BYTES, records.CARRY_HEAD_BYTES)
            return records.carried_ms(payload)
        entry = self._log.find(queue.topic.id, queue.id, offset)
        return None if entry is None else entry.stored_ms

    @staticmethod
    def _section(data: bytes, position: int, stored_ms: int) -> MessageSection:
        section, _end = parse_section(data, 0, position)
        return MessageSection(section, position, stored_ms, section.payload)
