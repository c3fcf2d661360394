"""Where messages go whose type says so: the broker chooses the queue by what a message is."""

from collections.abc import Sequence
from zlib import crc32

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations.journal import Journal, OnStored
from kourou_broker.operations.message import MAX_NAME_BYTES, Split, stored_form
from kourou_broker.state.definitions import Topic
from kourou_service.refusal import Refused


class Placement:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def by_message_group(
        self, topic: Topic, messages: Sequence[definition_pb2.Message], now_ms: int, on_stored: OnStored
    ) -> None:
        """A message group has one queue as long as the topic has as many queues as now."""
        groups = {message.system_properties.message_group for message in messages}
        parts = [stored_form(message, now_ms, definition_pb2.FIFO) for message in messages]
        for group in groups:
            if not group.strip() or len(group) > MAX_NAME_BYTES:
                raise Refused(
                    definition_pb2.ILLEGAL_MESSAGE_GROUP, f"the message group is blank or over {MAX_NAME_BYTES} long"
                )
        if len(groups) > 1:
            raise Refused(definition_pb2.BAD_REQUEST, "the messages of one request must have one message group")
        self._store(topic, parts, crc32(groups.pop().encode()) % len(topic.queues), on_stored)

    def by_priority(
        self, topic: Topic, messages: Sequence[definition_pb2.Message], now_ms: int, on_stored: OnStored
    ) -> None:
        """A queue is a level: the higher, the sooner. Priorities above the highest level belong to it."""
        priorities = {message.system_properties.priority for message in messages}
        parts = [stored_form(message, now_ms, definition_pb2.PRIORITY) for message in messages]
        lowest = min(priorities)
        if lowest < 0:
            raise Refused(definition_pb2.BAD_REQUEST, f"a priority must not be negative: {lowest}")
        levels = {min(priority, len(topic.queues) - 1) for priority in priorities}
        if len(levels) > 1:
            raise Refused(
                definition_pb2.BAD_REQUEST,
                f"the messages of one request must have one priority level; the topic has {len(topic.queues)}",
            )
        self._store(topic, parts, levels.pop(), on_stored)

    def _store(self, topic: Topic, parts: Sequence[Split], queue: int, on_stored: OnStored) -> None:
        rows, bodies = [part.row for part in parts], [part.body for part in parts]
        self._journal.store(topic, topic.type, rows, bodies, on_stored, queue=queue)
