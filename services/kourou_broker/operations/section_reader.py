"""Stored messages out of their sections."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from kourou_broker.log.errors import Dropped
from kourou_broker.log.log import Log
from kourou_broker.log.section import MESSAGE_ROW, SECTION_HEADER, SECTION_HEADER_BYTES, Entry, Section, parse_section
from kourou_broker.operations.held_tables import HeldTables, held_tables_bytes
from kourou_broker.state import records
from kourou_broker.state.definitions import Queue
from kourou_broker.state.half_messages import HalfMessage

_PEEK_BYTES = 4096
"""Of a section whose size is not known: small ones are read in one piece."""
_PIECE_BYTES = 512 * 1024
"""Messages so near to each other are read together."""


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


def _near_ones(indexes: Sequence[int], tables: HeldTables) -> Iterator[list[int]]:
    """The indexes, in their order, those together that are read in one piece."""
    some: list[int] = []
    start = end = 0
    for index in indexes:
        begins, ends = tables.start(index), tables.start(index + 1)
        if some and max(end, ends) - min(start, begins) > _PIECE_BYTES:
            yield some
            some = []
        start, end = (min(start, begins), max(end, ends)) if some else (begins, ends)
        some.append(index)
    yield some


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
        payload_at = position + SECTION_HEADER_BYTES
        if position < self._log.first_position or payload_at > self._log.durable_position:
            return []
        data = await self._log.read_at_most(position, _PEEK_BYTES)
        kind, _type, _, _topic, _queue, _base, count, length = SECTION_HEADER.unpack_from(data)
        if kind not in records.HELD_KINDS or count <= max(indexes):
            return []
        payload, tables_end = data[SECTION_HEADER_BYTES:], held_tables_bytes(kind, count)
        if len(payload) < min(length, tables_end):
            payload = await self._log.read(payload_at, tables_end)
        tables = HeldTables(kind, count, payload)
        found: list[StoredMessage] = []
        for some in _near_ones(indexes, tables):
            start, end = tables.start(min(some)), tables.start(max(some) + 1)
            piece = payload[start:end] if end <= len(payload) else await self._log.read(payload_at + start, end - start)
            for index in some:
                message = piece[tables.start(index) - start : tables.start(index + 1) - start]
                head, tail = message[: tables.head_bytes(index)], message[tables.head_bytes(index) :]
                found.append(
                    StoredMessage(-1, head, tail, tables.tag_hash(index), tables.stored_ms(index), position, index)
                )
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
