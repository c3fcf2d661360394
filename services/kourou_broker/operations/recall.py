"""Recall: a delayed message is taken back before its time."""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.errors import Dropped
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.message import type_name
from kourou_broker.operations.section_reader import SectionReader
from kourou_broker.state import State, records
from kourou_broker.state.definitions import Topic
from kourou_broker.state.timers import Place, Timer
from kourou_service.recall_handle import RecallHandle
from kourou_service.refusal import Refused


class Recalling:
    def __init__(self, state: State, journal: Journal, reader: SectionReader) -> None:
        self._state = state
        self._journal = journal
        self._reader = reader

    async def recall(self, topic: Topic, handle: RecallHandle) -> None:
        """Returns when the recall is durable. Raises Refused when the message is not pending (any more)."""
        if topic.type != definition_pb2.DELAY:
            raise Refused(
                definition_pb2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE,
                f"topic {topic.name} takes {type_name(topic.type)} messages: only DELAY ones can be recalled",
            )
        if await self._message_id(topic, handle) != handle.message_id:
            raise _not_pending(handle)
        # While the message was read it may have fired.
        if self._find(topic, handle) is None:
            raise _not_pending(handle)
        self._journal.require_room()
        self._journal.emit(records.recalled(topic.id, handle.due_ms, _origin(handle)))
        await self._journal.durable()

    def _find(self, topic: Topic, handle: RecallHandle) -> Timer | None:
        timers = self._state.timers.get(topic.id)
        return timers.find(handle.due_ms, _origin(handle)) if timers is not None else None

    async def _message_id(self, topic: Topic, handle: RecallHandle) -> str | None:
        """Of the message that is there. A log that lost its end in a crash may hold another one at this place."""
        timer = self._find(topic, handle)
        while timer is not None:
            try:
                message = await self._reader.held(*timer.place)
            except Dropped:
                message = None
            if message is not None:
                return definition_pb2.SystemProperties.FromString(message.tail).message_id
            before, timer = timer, self._find(topic, handle)
            if timer == before:
                return None
        return None


def _origin(handle: RecallHandle) -> Place:
    return Place(handle.position, handle.index)


def _not_pending(handle: RecallHandle) -> Refused:
    # Not MESSAGE_NOT_FOUND: clients take that for an empty answer, and so for success.
    return Refused(
        definition_pb2.NOT_FOUND,
        f"message {handle.message_id} is not pending: it was delivered or recalled already, or its topic was deleted",
    )
