"""Lite topics: made by their first message, gone when none came for the time that their topic allows."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from kourou.names import lite_topic_fault
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.operations.journal import Journal, OnStored, Stored
from kourou_broker.operations.lite_groups import lite_topics_of
from kourou_broker.operations.message import stored_form
from kourou_broker.operations.section_reader import SectionReader
from kourou_broker.operations.slices import in_slices
from kourou_broker.state import State, records
from kourou_broker.state.definitions import Queue, Topic
from kourou_broker.state.lite import LiteTopic, LiteTopics
from kourou_service.clock import Clock
from kourou_service.refusal import Refused

_logger = structlog.stdlib.get_logger(__name__)
SWEEP_INTERVAL_S = 120.0


class LiteStore:
    def __init__(
        self, state: State, journal: Journal, reader: SectionReader, clock: Clock, *, max_lite_topics: int
    ) -> None:
        self._state = state
        self._journal = journal
        self._reader = reader
        self._clock = clock
        self._max_lite_topics = max_lite_topics
        self._last_stored_ms: dict[int, dict[int, int]] = {}
        """By topic id and queue. As far as it was needed in this run of the broker; the log's index knows the rest."""
        self.on_messages: Callable[[Topic, str], None] = lambda _topic, _name: None
        """Called with a lite topic that has a new message which can be delivered."""

    def store(self, topic: Topic, messages: Sequence[definition_pb2.Message], now_ms: int, on_stored: OnStored) -> None:
        """Messages of one lite topic, which is made if it is new. Raises Refused, and then nothing is done."""
        names = {message.system_properties.lite_topic for message in messages}
        parts = [stored_form(message, now_ms, definition_pb2.LITE) for message in messages]
        for name in names:
            check_name(name)
        if len(names) > 1:
            raise Refused(definition_pb2.BAD_REQUEST, "the messages of one request must have one lite topic")
        name = names.pop()
        bodies = [part.body for part in parts]
        queue = self._queue(topic, name, sum(map(len, bodies)), now_ms)

        def stored(where: Stored | Refused) -> None:
            on_stored(where)
            self.on_messages(topic, name)

        self._journal.store(topic, definition_pb2.LITE, [part.row for part in parts], bodies, stored, queue.id)
        self._last_stored_ms.setdefault(topic.id, {})[queue.id] = now_ms

    def forget(self, topic_id: int) -> None:
        """The topic was deleted."""
        self._last_stored_ms.pop(topic_id, None)

    def _queue(self, topic: Topic, name: str, size: int, now_ms: int) -> Queue:
        """The lite topic's queue, for a message of so many bytes. Raises Refused."""
        lite_topics = lite_topics_of(topic)
        known = lite_topics.by_name.get(name)
        if known is not None:
            return known.queue
        if self._state.lite_topics >= self._max_lite_topics:
            raise Refused(
                definition_pb2.LITE_TOPIC_QUOTA_EXCEEDED,
                f"the broker holds {self._max_lite_topics} lite topics, its limit: no new one is made",
            )
        self._journal.admit(size)  # before it is made: a message that cannot be stored makes no lite topic
        self._record(topic, name, lite_topics.next_queue, now_ms)
        return lite_topics.by_name[name].queue

    def _record(self, topic: Topic, name: str, queue: int, last_stored_ms: int, *, gone: bool = False) -> None:
        saved = record_pb2.LiteTopic(topic=topic.id, name=name, queue=queue, last_stored_ms=last_stored_ms)
        self._journal.emit(records.lite_topic(saved, gone=gone), freeing=gone)

    async def run(self) -> None:
        """Lets lite topics go whose time is over, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            try:
                await self.sweep()
            except Exception:
                _logger.exception("lite topics could not be looked through; it is tried again")

    async def sweep(self) -> None:
        """What otherwise happens every SWEEP_INTERVAL_S."""
        for topic in list(self._state.topics.values()):
            minutes = topic.definition.lite_expiration_minutes
            if topic.lite is not None and minutes:
                await self._sweep_topic(topic, topic.lite, self._clock.now_ms() - minutes * 60_000)

    async def _sweep_topic(self, topic: Topic, lite_topics: LiteTopics, oldest_ms: int) -> None:
        gone = 0
        async for lite in in_slices(list(lite_topics.by_name.values())):
            last_stored_ms = await self._stored_last(lite)
            if self._state.topics_by_id.get(topic.id) is not topic:
                return  # deleted meanwhile
            if last_stored_ms < oldest_ms:
                self._last_stored_ms[topic.id].pop(lite.queue.id, None)
                self._record(topic, lite.name, lite.queue.id, last_stored_ms, gone=True)
                gone += 1
            elif lite.last_stored_ms < last_stored_ms and lite.queue.first_offset == lite.queue.next_offset:
                # the log does not have the message any more that would tell
                self._record(topic, lite.name, lite.queue.id, last_stored_ms)
        if gone:
            _logger.info("lite topics have expired", topic=str(topic.name), lite_topics=gone)

    async def _stored_last(self, lite: LiteTopic) -> int:
        """When its last message was stored, ms."""
        queue = lite.queue
        known = self._last_stored_ms.setdefault(queue.topic.id, {})
        if queue.id not in known:
            stored_ms = None
            if queue.first_offset < queue.next_offset:
                stored_ms = await self._reader.stored_ms(queue, queue.next_offset - 1)
            known.setdefault(queue.id, max(stored_ms or 0, lite.last_stored_ms))
        return known[queue.id]


def check_name(name: str) -> None:
    if fault := lite_topic_fault(name):
        raise Refused(definition_pb2.ILLEGAL_LITE_TOPIC, fault)
