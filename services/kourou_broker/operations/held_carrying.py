"""Messages that no consumer may see yet outlive the segments they lie in: they are copied forward before these go."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import NamedTuple

import structlog

from kourou_broker.log.section import MESSAGE_ROW, Section
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.section_reader import SectionReader, StoredMessage
from kourou_broker.state import records
from kourou_broker.state.timers import Place

_logger = structlog.stdlib.get_logger(__name__)
_READ_TOGETHER = 2048
"""Held messages that lie in one section are read at one time, if they are among so many."""
_CARRIED_A_TURN = 256
_CARRIED_BYTES_A_TURN = 256 * 1024


class HeldMessage(NamedTuple):
    """A delayed or half message, as those who hold it know it."""

    type: int
    topic: int
    when_ms: int
    origin: Place
    """By which the state will find it when it applies the HELD_CARRIED record."""
    place: Place


HeldBelow = Callable[[int], AsyncIterator[HeldMessage]]
"""Gives all that is held below a log position; what it leaves out is lost with its segment."""


class NoRoom(Exception):
    """The disk is too full to copy anything; nothing is lost, since nothing is dropped then."""


class HeldCarrying:
    def __init__(self, journal: Journal, reader: SectionReader) -> None:
        self._journal = journal
        self._reader = reader
        self.sources: list[HeldBelow] = []
        """Of those who hold messages back."""
        self._copied_bytes = 0
        self.carried_bytes = 0
        """By the last pass: so much of the log is alive, however old it is."""

    async def carry_below(self, boundary: int) -> None:
        """Returns when nothing that is held needs the log below the boundary any more. Raises NoRoom."""
        self._copied_bytes = 0
        for source in self.sources:
            waiting: list[HeldMessage] = []
            async for held in source(boundary):
                waiting.append(held)
                if len(waiting) == _READ_TOGETHER:
                    await self._carry(waiting)
                    waiting = []
            if waiting:
                await self._carry(waiting)
        self.carried_bytes = self._copied_bytes

    async def _carry(self, some: list[HeldMessage]) -> None:
        sections: dict[tuple[int, int, int], list[HeldMessage]] = defaultdict(list)
        for held in some:
            sections[held.type, held.topic, held.place.position].append(held)
        copies, most_bytes = _Copies(), min(_CARRIED_BYTES_A_TURN, self._journal.max_call_bytes)
        for (type_, topic, position), of_section in sections.items():
            messages = await self._reader.held_all(position, [held.place.index for held in of_section])
            if not messages:
                _logger.error("held messages are missing in the log", position=position, messages=len(of_section))
            for held, message in zip(of_section, messages, strict=False):
                size_bytes = copies.size_bytes + len(message.head) + len(message.tail)
                if copies.count == _CARRIED_A_TURN or (copies.count and size_bytes > most_bytes):
                    await self._copy(copies)
                    copies = _Copies()
                copies.add(type_, topic, held, message)
        if copies.count:
            await self._copy(copies)

    async def _copy(self, copies: "_Copies") -> None:
        """What is held no longer by now is copied in vain, and does no harm: the state ignores it."""
        if not self._journal.has_room:
            raise NoRoom("the disk has no room to carry held messages out of old segments")
        for section in copies.sections():
            self._journal.carry(section)
            self._copied_bytes += len(section.payload)
        # Not faster than the disk takes it: else the copies would pile up in memory.
        await self._journal.durable()


class _Copies:
    """What goes into one frame."""

    def __init__(self) -> None:
        self._by_topic: dict[tuple[int, int], list[tuple[HeldMessage, StoredMessage]]] = defaultdict(list)
        self.count = self.size_bytes = 0

    def add(self, type_: int, topic: int, held: HeldMessage, message: StoredMessage) -> None:
        self._by_topic[type_, topic].append((held, message))
        self.count += 1
        self.size_bytes += len(message.head) + len(message.tail)

    def sections(self) -> Iterator[Section]:
        for (type_, topic), copies in self._by_topic.items():
            yield records.held_carried(
                type_,
                topic,
                [held.origin for held, _ in copies],
                [held.when_ms for held, _ in copies],
                [message.stored_ms for _, message in copies],
                [MESSAGE_ROW.pack(len(message.head), len(message.tail), message.tag_hash) for _, message in copies],
                [message.head + message.tail for _, message in copies],
            )
