"""Stored messages out of their sections."""

from itertools import accumulate
from typing import NamedTuple

from kourou_broker.log.log import Log
from kourou_broker.log.section import MESSAGE_ROW, SECTION_HEADER_BYTES, Entry, Section, parse_section
from kourou_broker.state import records
from kourou_broker.state.definitions import Queue


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

    async def held(self, position: int, index: int) -> StoredMessage | None:
        """One message of a HELD section; None if its segment is gone. It has no offset: -1."""
        header_end = position + SECTION_HEADER_BYTES
        if position < self._log.first_position or header_end > self._log.durable_position:
            return None
        head = await self._log.read(position, SECTION_HEADER_BYTES)
        length = SECTION_HEADER_BYTES + int.from_bytes(head[-4:], "little")
        section, _end = parse_section(await self._log.read(position, length), 0, position)
        _whens, stored_ms, messages = records.read_held(section)
        return MessageSection(section, position, stored_ms[index], messages).message(index)._replace(offset=-1)

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
