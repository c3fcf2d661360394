"""Stored messages by id, key, time, offset and log position, for those who operate the cluster."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.errors import Dropped
from kourou_broker.log.log import Log
from kourou_broker.log.section import SECTION_HEADER_BYTES, parse_section
from kourou_broker.operations.section_reader import SectionReader, StoredMessage
from kourou_broker.state import Kind, State
from kourou_broker.state.definitions import Queue, Topic
from kourou_service.refusal import Refused

_MAX_FOUND_BYTES = 8 * 1024 * 1024
"""After so much an answer takes no further message: it has to fit one of gRPC's."""

Found = tuple[Queue, StoredMessage]
Place = tuple[int, int]
"""The log position of a section, and which of its messages."""


class Lookup(Protocol):
    """Finds places by reading files only, outside of this process."""

    async def by_id(self, topic: int, message_id: str, limit: int) -> Sequence[Place]: ...

    async def by_key(self, topic: int, key: str, limit: int) -> Sequence[Place]: ...

    async def by_time(self, topic: int, from_ms: int, to_ms: int, limit: int) -> Sequence[Place]: ...


class Search:
    def __init__(self, state: State, log: Log, reader: SectionReader, lookup: Lookup) -> None:
        self._state = state
        self._log = log
        self._reader = reader
        self._lookup = lookup

    async def by_message_id(self, topic: Topic, message_id: str, limit: int) -> list[Found]:
        if not message_id:
            raise Refused(definition_pb2.ILLEGAL_MESSAGE_ID, "the message id is empty")
        return await self._at(await self._lookup.by_id(topic.id, message_id, limit))

    async def by_key(self, topic: Topic, key: str, limit: int) -> list[Found]:
        if not key:
            raise Refused(definition_pb2.ILLEGAL_MESSAGE_KEY, "the key is empty")
        return await self._at(await self._lookup.by_key(topic.id, key, limit))

    async def by_time(self, topic: Topic, from_ms: int, to_ms: int, limit: int) -> list[Found]:
        if from_ms > to_ms:
            raise Refused(definition_pb2.BAD_REQUEST, "the time span ends before it begins")
        return await self._at(await self._lookup.by_time(topic.id, from_ms, to_ms, limit))

    async def at_offset(self, queue: Queue, offset: int) -> list[Found]:
        message = await self._reader.message(queue, offset)
        return [] if message is None else [(queue, message)]

    async def at_position(self, position: int, index: int) -> list[Found]:
        """The message of an offset message id; nothing where no section begins, or where it is not on the disk yet."""
        header_end = position + SECTION_HEADER_BYTES
        if position < self._log.first_position or header_end > self._log.durable_position:
            return []
        try:
            head = bytearray(await self._log.read(position, SECTION_HEADER_BYTES))
            head[-4:] = bytes(4)  # the payload's length: not read here
            section, _end = parse_section(bytes(head), 0, position)
        except (ValueError, Dropped):  # across the end of a segment, or gone meanwhile
            return []
        queue = self._state.queue(section.topic, section.queue)
        if section.kind != Kind.MESSAGES or queue is None or index >= section.count:
            return []
        entry = self._reader.find(queue, section.base)
        if entry is None or entry.position != position:
            return []
        return [(queue, (await self._reader.read(entry)).message(index))]

    async def _at(self, places: Iterable[Place]) -> list[Found]:
        found: list[Found] = []
        room_bytes = _MAX_FOUND_BYTES
        for position, index in places:
            if room_bytes <= 0:
                break
            here = await self.at_position(position, index)
            room_bytes -= sum(len(message.head) for _queue, message in here)
            found += here
        return found
