"""Stored messages out of their sections: of a table of messages, or of a batch."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol, overload

from kourou_broker.log.batch import Batch
from kourou_broker.log.errors import Dropped
from kourou_broker.log.log import Log
from kourou_broker.log.section import (
    MESSAGE_ROW,
    SECTION_HEADER,
    SECTION_HEADER_BYTES,
    Entry,
    Section,
    SectionKind,
    parse_section,
)
from kourou_broker.operations.held_tables import HeldTables, held_tables_bytes
from kourou_broker.operations.message import NO_TAG, tag_hash
from kourou_broker.operations.open_sections import OpenSections
from kourou_broker.state import records
from kourou_broker.state.definitions import Queue
from kourou_broker.state.half_messages import HalfMessage

_PEEK_BYTES = 4096
"""Of a section whose size is not known: small ones are read in one piece."""
_PIECE_BYTES = 512 * 1024
"""Messages so near to each other are read together."""
_OPEN_BYTES = 16 * 1024 * 1024
"""Of the sections that are kept, about."""
_A_MESSAGE_BYTES = 200
"""That a section which was taken apart takes beside its bytes."""


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


class MessageSection(Protocol):
    """The messages of one section, cut out one by one when asked for."""

    base: int
    count: int

    def tag_hash(self, index: int) -> int: ...

    def message(self, index: int) -> StoredMessage: ...


class TableSection:
    """A section with a table of messages."""

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


class BatchSection:
    """A section that came in one piece: its messages are made up in the form of all others."""

    __slots__ = ("_hashes", "_section", "base", "batch", "count", "stored_ms")

    def __init__(self, section: Section, stored_ms: int) -> None:
        self.base = section.base
        self.count = section.count
        self.batch = Batch(section.payload)
        self.stored_ms = stored_ms
        self._section = section
        self._hashes: dict[str | None, int] = {None: NO_TAG}

    def tag_hash(self, index: int) -> int:
        tag = self.batch.tag(index)
        known = self._hashes.get(tag)
        if known is None:
            assert tag is not None
            known = self._hashes[tag] = tag_hash(tag)
        return known

    def message(self, index: int) -> StoredMessage:
        return StoredMessage(
            self.base + index,
            self.batch.message(index).SerializeToString(),
            self.batch.properties(index, self._section.type).SerializeToString(),
            self.tag_hash(index),
            self.stored_ms,
            self._section.position,
            index,
        )


class Run(Sequence[StoredMessage]):
    """Messages of a batch that lie next to each other: they need not be cut out to be delivered."""

    __slots__ = ("_count", "first", "section", "size_bytes")

    def __init__(self, section: BatchSection, first: int, count: int) -> None:
        self.section = section
        self.first = first
        self._count = count
        self.size_bytes = section.batch.packed_bytes * count // section.count
        """About."""

    @property
    def offsets(self) -> range:
        start = self.section.base + self.first
        return range(start, start + self._count)

    @property
    def whole(self) -> bool:
        return self._count == self.section.count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> StoredMessage: ...
    @overload
    def __getitem__(self, index: slice) -> list[StoredMessage]: ...
    def __getitem__(self, index: int | slice) -> StoredMessage | list[StoredMessage]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self._count))]
        return self.section.message(self.first + range(self._count)[index])


def offsets_of(messages: Sequence[StoredMessage]) -> Sequence[int]:
    """A range where they lie next to each other and that is known."""
    return messages.offsets if isinstance(messages, Run) else [message.offset for message in messages]


def size_of(messages: Sequence[StoredMessage]) -> int:
    """Bytes of all of them."""
    if isinstance(messages, Run):
        return messages.size_bytes
    return sum(len(message.head) + len(message.tail) for message in messages)


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
        self._reading: dict[int, asyncio.Task[bytes]] = {}
        """Sections that are on their way from the disk."""
        self._open = OpenSections[MessageSection](_OPEN_BYTES)

    def find(self, queue: Queue, offset: int) -> Entry | None:
        """The section that holds the offset, or the first one after it."""
        entry = self._log.find(queue.topic.id, queue.id, offset)
        return entry if entry is not None and entry.position < self._log.durable_position else None

    def cached(self, entry: Entry) -> MessageSection | None:
        """The section, if reading it takes no time."""
        section = self._open.get(entry.position)
        if section is None:
            data = self._log.read_now(entry.position, entry.length)
            section = None if data is None else self._take_apart(data, entry)
        return section

    async def read(self, entry: Entry) -> MessageSection:
        """It is read once, however many groups wait for it."""
        position = entry.position
        reading = self._reading.get(position)
        if reading is None:
            reading = self._reading[position] = asyncio.ensure_future(self._log.read(position, entry.length))
            reading.add_done_callback(lambda done: self._has_read(position, done))
        data = await asyncio.shield(reading)
        return self._open.get(position) or self._take_apart(data, entry)

    def _has_read(self, position: int, reading: "asyncio.Task[bytes]") -> None:
        del self._reading[position]
        if not reading.cancelled():
            reading.exception()  # who waits hears of it; if they all went nobody needs to

    async def message(self, queue: Queue, offset: int) -> StoredMessage | None:
        """One message by its offset, its carried copy if its segment is gone; None if it is not there any more."""
        copy = queue.carried.get(offset)
        if copy is not None and offset < queue.first_offset:
            data = await self._log.read(copy.position, copy.length)
            section, _end = parse_section(data, 0, copy.position)
            stored_ms, message = records.read_carry(section)
            return TableSection(section, copy.position, stored_ms, message).message(0)
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

    def _take_apart(self, data: bytes, entry: Entry) -> MessageSection:
        section, _end = parse_section(data, 0, entry.position)
        if section.kind == SectionKind.BATCH:
            made = BatchSection(section, entry.stored_ms)
        else:
            made = TableSection(section, entry.position, entry.stored_ms, section.payload)
        return self._open.add(entry.position, made, len(data) + _A_MESSAGE_BYTES * section.count)
