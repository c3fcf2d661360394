"""Stored messages by id, key, time, offset and log position, for those who operate the cluster."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations.places import Places
from kourou_broker.operations.section_reader import SectionReader, StoredMessage
from kourou_broker.state.definitions import Queue, Topic
from kourou_service.refusal import Refused

_MAX_FOUND_BYTES = 8 * 1024 * 1024
"""After so much an answer takes no further message: it has to fit one of gRPC's."""

Found = tuple[Queue | None, StoredMessage]
"""Without a queue: the message is held, and no consumer may see it yet."""
Place = tuple[int, int]
"""The log position of a section, and which of its messages."""


class Lookup(Protocol):
    """Finds places by reading files only, outside of this process."""

    async def prepare(self) -> None:
        """Reads what is read once, so that the first question need not."""
        ...

    async def by_id(self, topic: int, message_id: str, limit: int) -> Sequence[Place]: ...

    async def by_key(self, topic: int, key: str, limit: int) -> Sequence[Place]: ...

    async def by_time(self, topic: int, from_ms: int, to_ms: int, limit: int) -> Sequence[Place]: ...


class Search:
    def __init__(self, places: Places, reader: SectionReader, lookup: Lookup) -> None:
        self._places = places
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
        """The message of an offset message id; nothing where none begins, or where it is not on the disk yet."""
        located = await self._places.locate(position, index)
        if located is None or not self._places.is_current(located):
            return []
        return [(located.queue, located.message)]

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
