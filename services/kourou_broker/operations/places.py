"""What lies at a place of the log: a message in a queue, the copy of one, or one that no consumer may see yet."""

from typing import NamedTuple

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.errors import Dropped
from kourou_broker.log.log import Log
from kourou_broker.log.section import QUEUED_KINDS, SECTION_HEADER_BYTES, Section, parse_section
from kourou_broker.operations.section_reader import SectionReader, StoredMessage, TableSection
from kourou_broker.state import Kind, State, records
from kourou_broker.state.definitions import Queue
from kourou_broker.state.half_messages import TransactionId
from kourou_broker.state.timers import Place


class Located(NamedTuple):
    kind: int
    """Of its section."""
    type: int
    topic: int
    queue: Queue | None
    """None of held messages, which are in no queue."""
    message: StoredMessage
    when_ms: int = 0
    """Of a held message: when it is due, or its producer is asked for the first time."""
    origin: Place | None = None
    """Of a held message: by which the state and the records know it."""


class Places:
    def __init__(self, state: State, log: Log, reader: SectionReader) -> None:
        self._state = state
        self._log = log
        self._reader = reader

    async def locate(self, position: int, index: int) -> Located | None:
        """None where no section with so many messages begins, or where it is not on the disk yet."""
        header_end = position + SECTION_HEADER_BYTES
        if position < self._log.first_position or header_end > self._log.durable_position:
            return None
        try:
            head = bytearray(await self._log.read(position, SECTION_HEADER_BYTES))
            length = int.from_bytes(head[-4:], "little")
            head[-4:] = bytes(4)  # the payload is not read here
            section, _end = parse_section(bytes(head), 0, position)
            if index >= section.count:
                return None
            match section.kind:
                case Kind.MESSAGES | Kind.BATCH:
                    return await self._in_queue(section, index)
                case Kind.CARRY:
                    return self._carried(section, await self._log.read(header_end, length))
                case Kind.HELD | Kind.HELD_CARRIED:
                    return await self._held(section, index)
                case _:
                    return None
        except (ValueError, Dropped):  # across the end of a segment, or gone meanwhile
            return None

    def is_current(self, located: Located) -> bool:
        """Whether the message is there now: not a copy whose original is there, not held no longer, not expired."""
        message = located.message
        if located.queue is not None:
            copy = located.queue.carried.get(message.offset)
            if message.offset >= located.queue.first_offset:
                return located.kind in QUEUED_KINDS
            return copy is not None and copy.position == message.position
        return located.origin is not None and self._held_at(located, located.origin) == (
            message.position,
            message.place,
        )

    def _held_at(self, located: Located, origin: Place) -> Place | None:
        """Where a held message is now; None if it is held no longer."""
        if located.type == definition_pb2.TRANSACTION:
            half = self._state.half_messages.get(located.topic, TransactionId(*origin))
            return half.place if half is not None else None
        timers = self._state.timers.get(located.topic)
        timer = timers.find(located.when_ms, origin) if timers is not None else None
        return timer.place if timer is not None else None

    async def _in_queue(self, section: Section, index: int) -> Located | None:
        queue = self._state.queue(section.topic, section.queue)
        entry = self._reader.find(queue, section.base) if queue is not None else None
        if entry is None or entry.position != section.position:
            return None
        message = (await self._reader.read(entry)).message(index)
        return Located(section.kind, section.type, section.topic, queue, message)

    def _carried(self, section: Section, payload: bytes) -> Located | None:
        queue = self._state.queue(section.topic, section.queue)
        if queue is None:
            return None
        stored_ms, message = records.read_carry(section._replace(payload=payload))
        one = TableSection(section, section.position, stored_ms, message).message(0)
        return Located(section.kind, section.type, section.topic, queue, one)

    async def _held(self, section: Section, index: int) -> Located | None:
        message = await self._reader.held(section.position, index)
        if message is None:
            return None
        table_at = records.held_table_at(section.kind, section.count)
        tables = section._replace(payload=await self._log.read(section.position + SECTION_HEADER_BYTES, table_at))
        whens, _stored_ms, _messages = records.read_held(tables)
        carried = section.kind == Kind.HELD_CARRIED
        origin = records.read_origins(tables)[index] if carried else Place(section.position, index)
        return Located(section.kind, section.type, section.topic, None, message, whens[index], origin)
