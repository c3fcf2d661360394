"""The life of a message, told from the log's own records and from what the broker knows at this moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from kourou.errors import InvalidArgument
from kourou.message_id import OffsetMessageId
from kourou.names import dead_letter_topic
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.log import Log
from kourou_broker.log.section import QUEUED_KINDS
from kourou_broker.operations import story
from kourou_broker.operations.clients import Clients
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.places import Located, Places
from kourou_broker.operations.search import Lookup
from kourou_broker.operations.slices import in_slices
from kourou_broker.operations.story import GroupStory, Story, Told
from kourou_broker.operations.waiting import Waiting
from kourou_broker.state import State
from kourou_broker.state.definitions import Group, Name, Queue, Topic
from kourou_broker.state.history import Ending, GroupHistory, HeldHistory, MessageHistory, What
from kourou_broker.state.timers import Place
from kourou_service.refusal import Refused

_logger = structlog.stdlib.get_logger(__name__)
_MAX_PLACES = 64
"""Of one message id: more were hardly sent by one producer."""


class Histories(Protocol):
    """Reads files only, outside of this process."""

    async def of(self, topic: int, queue: int, offset: int, since: int | None) -> MessageHistory: ...

    async def of_held(self, topic: int, origin: Place) -> HeldHistory: ...


@dataclass(frozen=True, slots=True)
class Explanation:
    stories: Sequence[Story]
    known_since_ms: int
    """When the oldest record was stored that is left; 0 in an empty log."""


class Explaining:
    def __init__(
        self,
        *,
        broker: str,
        state: State,
        log: Log,
        journal: Journal,
        clients: Clients,
        places: Places,
        lookup: Lookup,
        histories: Histories,
        waiting: Waiting,
    ) -> None:
        self._broker = broker
        self._state = state
        self._log = log
        self._journal = journal
        self._clients = clients
        self._places = places
        self._lookup = lookup
        self._histories = histories
        self._waiting = waiting

    async def explain(self, topic: Topic | None, message_id: str) -> Explanation:
        """One story for each message with that id. An offset message id needs no topic. Raises Refused."""
        if not message_id:
            raise Refused(definition_pb2.ILLEGAL_MESSAGE_ID, "the message id is empty")
        at = _offset_message_id(message_id)
        if topic is None and at is None:
            raise Refused(
                definition_pb2.BAD_REQUEST,
                "the topic is missing: only an offset message id, as broker-a@1f40.3, needs none",
            )
        await self._journal.durable()  # what happened up to now is in the files then
        stories = await self._by_id(topic, message_id) if topic is not None else []
        if not stories and at is not None and at.broker == self._broker:
            stories = await self._at(at, topic)
        return Explanation(stories, self._log.segments()[0].first_stored_ms)

    async def prepare(self) -> None:
        """Lets those who search read once what they keep, such as the active segment: else the first question waits.

        In a log of one segment it would not wait long, and the process that searches would be started for nothing.
        """
        if len(self._log.segments()) > 1:
            try:
                await self._lookup.prepare()
                await self._histories.of(0, 0, 0, self._log.next_position)  # it reads the active segment only
            except Exception:
                _logger.exception("the search could not be prepared: the first question will take longer")

    async def _by_id(self, topic: Topic, message_id: str) -> list[Story]:
        places = await self._lookup.by_id(topic.id, message_id, _MAX_PLACES)
        found = [located for place in places if (located := await self._places.locate(*place)) is not None]
        return await self._stories(found)

    async def _at(self, at: OffsetMessageId, topic: Topic | None) -> list[Story]:
        """The life of the message that lies there, with what it was before or became later."""
        located = await self._places.locate(at.position, at.index)
        of = self._state.topics_by_id.get(located.topic) if located is not None else None
        if located is None or of is None or (topic is not None and topic is not of):
            return []
        message_id = definition_pb2.SystemProperties.FromString(located.message.tail).message_id
        stories = await self._by_id(of, message_id)
        return [story for story in stories if (at.position, at.index) in story.places]

    async def _stories(self, found: Sequence[Located]) -> list[Story]:
        lives = story.lives(found)
        queued = [await self._queued(life, life[0].queue) for life in lives if life[0].queue is not None]
        stories: list[Story] = []
        for life in lives:
            if life[0].queue is None:
                held = await self._held(life)
                successor = story.became(held, queued)
                if successor is not None:
                    queued.remove(successor)
                    held = story.join(held, successor)
                stories.append(held)
        return sorted((*stories, *queued), key=lambda told: told.events[0].event.stored_ms)

    async def _queued(self, life: Sequence[Located], queue: Queue) -> Story:
        message = life[0].message
        since = message.position if life[0].kind in QUEUED_KINDS else None
        history = await self._histories.of(queue.topic.id, queue.id, message.offset, since)
        groups = [
            await self._group(group, queue, life[0], history)
            async for group in in_slices(list(self._state.groups.values()))
            if group.id in history.groups or self._reads(group, queue.topic)
        ]
        deleted = [told for told in history.groups.values() if told.group not in self._state.groups_by_id]
        groups += [await self._deleted(told, queue, life[0]) for told in deleted]
        groups.sort(key=lambda group: group.group)
        later = story.tell(event for event in (history.resent, history.gone) if event is not None)
        return Story(life[0], [story.stored(life[0]), *later], groups, places=_places(life))

    async def _held(self, life: Sequence[Located]) -> Story:
        located = life[0]
        assert located.origin is not None
        history = await self._histories.of_held(located.topic, located.origin)
        events = [story.held(located), *story.tell(history.events)]
        waits_for = ""
        if any(self._places.is_current(copy) for copy in life):
            waits_for = self._waiting.while_held(located)
        return Story(located, events, waits_for=waits_for, places=_places(life))

    async def _group(self, group: Group, queue: Queue, located: Located, history: MessageHistory) -> GroupStory:
        offset = located.message.offset
        told = history.groups.get(group.id)
        if told is None or (not told.events and told.ending == Ending.WAITING):
            progress = self._state.progress.get((group.id, queue.topic.id, queue.id))
            high = progress.high if progress is not None else queue.first_offset
            if offset < high and (progress is None or offset not in progress.pending):
                expired = story.tell([history.expired]) if history.expired is not None else []
                return GroupStory(group.name, Ending.EXPIRED if expired or progress is None else None, expired)
            return GroupStory(group.name, Ending.WAITING, waits_for=self._waiting.why(group, queue, offset, None))
        group_story = GroupStory(group.name, told.ending, await self._events(told, group.name, queue.topic, located))
        if told.ending == Ending.WAITING:
            group_story.waits_for = self._waiting.why(group, queue, offset, told.events[-1])
        return group_story

    async def _deleted(self, told: GroupHistory, queue: Queue, located: Located) -> GroupStory:
        """Of a group that is no more: its name is known as long as its tombstone."""
        name = next(
            (name for name, tombstone in self._state.group_tombstones.items() if tombstone.id == told.group),
            Name("", f"group-{told.group}"),
        )
        events = await self._events(told, name, queue.topic, located)
        waits_for = "the group was deleted" if told.ending == Ending.WAITING else ""
        return GroupStory(name, told.ending, events, waits_for)

    async def _events(self, told: GroupHistory, group: Name, topic: Topic, located: Located) -> list[Told]:
        events = story.tell(told.events)
        for one in events:
            if one.event.what == What.DEAD_LETTERED:
                one.note = "; ".join(filter(None, (one.note, await self._dead_letter(one, group, located))))
        return events

    async def _dead_letter(self, told: Told, group: Name, located: Located) -> str:
        """Where it went: to the group's dead-letter topic, in the same frame."""
        name = Name(group.namespace, dead_letter_topic(group.name))
        letters = self._state.topics.get(name)
        if letters is None:
            return ""
        message_id = definition_pb2.SystemProperties.FromString(located.message.tail).message_id
        places = await self._lookup.by_id(letters.id, message_id, _MAX_PLACES)
        behind = sorted(place for place in places if place[0] > told.event.position)
        letter = await self._places.locate(*behind[0]) if behind else None
        if letter is None or letter.message.stored_ms != told.event.stored_ms:
            return f"to {name}, where it is no more"
        position, index = behind[0]
        return f"to {name}, offset {letter.message.offset}: {self._broker}@{position:x}.{index:x}"

    def _reads(self, group: Group, topic: Topic) -> bool:
        """Whether the group has progress in the topic here, or a member that wants it."""
        progress = self._state.progress
        return any((group.id, topic.id, queue.id) in progress for queue in topic.all_queues()) or any(
            topic.name in member.subscriptions for member in self._clients.members(group.name)
        )


def _places(life: Sequence[Located]) -> set[tuple[int, int]]:
    return {(located.message.position, located.message.place) for located in life}


def _offset_message_id(message_id: str) -> OffsetMessageId | None:
    try:
        return OffsetMessageId.parse(message_id)
    except InvalidArgument:
        return None
