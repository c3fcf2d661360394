"""Sending: all messages of a call or none, in consecutive places of one queue."""

from collections.abc import Callable, Sequence

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations.definitions import Definitions, can_write
from kourou_broker.operations.journal import Journal, OnStored
from kourou_broker.operations.message import stored_form, type_name
from kourou_broker.state import State
from kourou_broker.state.definitions import Topic
from kourou_service.clock import Clock
from kourou_service.refusal import Refused

MAX_MESSAGES = 4096


Store = Callable[[Topic, Sequence[definition_pb2.Message], int, OnStored], None]
"""Takes the topic, the messages of one call (which it uses up), the time now (ms), and whom to tell."""


class Sending:
    def __init__(self, state: State, definitions: Definitions, journal: Journal, clock: Clock) -> None:
        self._state = state
        self._definitions = definitions
        self._journal = journal
        self._clock = clock
        self.refused_reason = ""
        """Why this broker takes no messages although its permission allows it; empty when it does."""
        self.by_type: dict[int, Store] = {}
        """How messages of topics other than NORMAL ones are stored."""

    def send(self, messages: Sequence[definition_pb2.Message], on_stored: OnStored) -> None:
        """on_stored is called when all are durable. Raises Refused, and then none is stored. Uses the messages up."""
        if not messages:
            raise Refused(definition_pb2.BAD_REQUEST, "the request holds no message")
        if len(messages) > MAX_MESSAGES:
            raise Refused(definition_pb2.PAYLOAD_TOO_LARGE, f"over {MAX_MESSAGES} messages in one request")
        resource = messages[0].topic
        topic = self._definitions.topic(resource)
        self._check_writable(topic)
        if any(message.topic != resource for message in messages):
            raise Refused(definition_pb2.BAD_REQUEST, "the messages of one request must have one topic")
        now_ms = self._clock.now_ms()
        if topic.type != definition_pb2.NORMAL:
            store = self.by_type.get(topic.type)
            if store is None:
                raise Refused(definition_pb2.UNSUPPORTED, f"{type_name(topic.type)} topics are not supported yet")
            store(topic, messages, now_ms, on_stored)
            return
        parts = [stored_form(message, now_ms) for message in messages]
        self._journal.store(
            topic, definition_pb2.NORMAL, [part.row for part in parts], [part.body for part in parts], on_stored
        )

    def _check_writable(self, topic: Topic) -> None:
        if self.refused_reason:
            raise Refused(definition_pb2.FORBIDDEN, f"this broker takes no messages: {self.refused_reason}")
        if not can_write(self._state.broker.permission):
            raise Refused(definition_pb2.FORBIDDEN, "this broker's write permission is off: send to another one")
        if not can_write(topic.permission):
            raise Refused(definition_pb2.FORBIDDEN, f"topic {topic.name} has no write permission")
