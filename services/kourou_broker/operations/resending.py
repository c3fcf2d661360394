"""Dead letters that are looked at, and given back to their group as if they had never been tried."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from kourou.names import dead_letter_topic
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations.dead_letter import origin_of, original_of
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.section_reader import SectionReader, StoredMessage
from kourou_broker.operations.slices import in_slices
from kourou_broker.state import State, records
from kourou_broker.state.definitions import Group, Name, Queue, Topic
from kourou_service.refusal import Refused

_MAX_LISTED_BYTES = 8 * 1024 * 1024
"""After so much a list takes no further letter: it has to fit one of gRPC's messages."""


@dataclass(frozen=True, slots=True)
class Letter:
    queue: Queue
    stored: StoredMessage
    origin: tuple[int, int, int] | None
    """Topic id, queue and offset; None if it does not say so."""


@dataclass(slots=True)
class Letters:
    found: list[Letter] = field(default_factory=list[Letter])
    next_offset: int | None = None
    """Where the list goes on; None if that was all."""


class Resending:
    def __init__(
        self,
        state: State,
        journal: Journal,
        reader: SectionReader,
        begin: Callable[[Group, Topic], Awaitable[None]],
    ) -> None:
        """begin: sees to it that a group which has not read a topic yet starts in the right place."""
        self._state = state
        self._journal = journal
        self._reader = reader
        self._begin = begin
        self.on_resent: Callable[[Group, Topic, int, int], None] = lambda _group, _topic, _queue, _offset: None
        """Called with queue and offset of a message that is pending again, when the disk knows."""

    async def letters(self, group: Group, from_offset: int, limit: int) -> Letters:
        """Those that were not resent, the oldest first."""
        letters = Letters()
        queue = self._queue(group)
        if queue is None:
            return letters
        first = max(from_offset, queue.first_offset, queue.resent.below if queue.resent is not None else 0)
        size_bytes = 0
        async for offset in in_slices(range(first, queue.next_offset)):
            if queue.resent is not None and offset in queue.resent:
                continue
            if len(letters.found) == limit or size_bytes > _MAX_LISTED_BYTES:
                letters.next_offset = offset
                break
            stored = await self._reader.message(queue, offset)
            if stored is not None:
                letters.found.append(Letter(queue, stored, _origin_of(stored)))
                size_bytes += len(stored.head)
        return letters

    async def resend(self, group: Group, offset: int) -> None:
        """Gives one letter back; wait for the journal before the answer. Raises Refused with what stands in the way."""
        queue = self._queue(group)
        letter = await self._reader.message(queue, offset) if queue is not None and offset >= 0 else None
        if queue is None or letter is None:
            raise Refused(definition_pb2.MESSAGE_NOT_FOUND, f"no dead letter at {offset}: it has expired, or never was")
        await self._begin(group, self._home(letter)[0])
        topic, origin, at = self._home(letter)
        # From here on nothing is waited for: what is looked at now holds in this turn.
        if self._queue(group) is not queue or self._state.groups_by_id.get(group.id) is not group:
            raise Refused(definition_pb2.MESSAGE_NOT_FOUND, "the group or its dead-letter topic was deleted meanwhile")
        if queue.resent is not None and offset in queue.resent:
            raise Refused(definition_pb2.PRECONDITION_FAILED, f"the dead letter at {offset} was resent before")
        self._journal.require_room()
        if at < origin.first_offset and at not in origin.carried:
            # Its segment is gone: the letter stands in for it.
            row, body = original_of(letter, topic)
            self._journal.carry(records.carry(topic.id, origin.id, at, letter.stored_ms, row, body))
        self._journal.emit(records.resent(group.id, queue.topic.id, offset, (topic.id, origin.id, at)))
        self._journal.when_durable(lambda: self.on_resent(group, topic, origin.id, at))

    def _queue(self, group: Group) -> Queue | None:
        topic = self._state.topics.get(Name(group.name.namespace, dead_letter_topic(group.name.name)))
        return topic.queues[0] if topic is not None else None

    def _home(self, letter: StoredMessage) -> tuple[Topic, Queue, int]:
        """-> topic, queue and offset that the letter goes back to. Raises Refused."""
        origin = _origin_of(letter)
        if origin is None:
            raise Refused(
                definition_pb2.PRECONDITION_FAILED,
                "the letter does not say where it came from: it was sent by hand, or by a broker of an earlier version",
            )
        topic = self._state.topics_by_id.get(origin[0])
        system = definition_pb2.SystemProperties.FromString(letter.tail)
        name = system.dead_letter_queue.topic
        if topic is None:
            raise Refused(definition_pb2.TOPIC_NOT_FOUND, f"topic {name}, which the letter came from, was deleted")
        queue = topic.find_queue(origin[1])
        if queue is None or origin[2] >= queue.next_offset:
            raise Refused(definition_pb2.TOPIC_NOT_FOUND, f"the queue of {name} which the letter came from is gone")
        if topic.lite is not None:
            lite = topic.lite.by_name.get(system.lite_topic)
            if lite is None or lite.queue is not queue:  # nobody reads the queue, or readers of another lite topic do
                raise Refused(
                    definition_pb2.PRECONDITION_FAILED,
                    f"the lite topic {system.lite_topic!r} of {name}, which the letter came from, has expired",
                )
        return topic, queue, origin[2]


def _origin_of(letter: StoredMessage) -> tuple[int, int, int] | None:
    return origin_of(definition_pb2.Message.FromString(letter.head))
