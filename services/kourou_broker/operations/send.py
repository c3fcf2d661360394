"""Sending: all messages of a call or none, in consecutive places of one queue."""

from collections.abc import Callable, Sequence

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.batch import Batch
from kourou_broker.operations.batch_rules import MAX_MESSAGES, check_batch, check_ordinary, messages_of
from kourou_broker.operations.definitions import Definitions, can_write
from kourou_broker.operations.gathered_places import GatheredPlaces
from kourou_broker.operations.journal import Journal, OnStored
from kourou_broker.operations.message import stored_form, type_name
from kourou_broker.operations.recent_sends import RecentSends, batch_key
from kourou_broker.operations.traffic import Traffic
from kourou_broker.state import State
from kourou_broker.state.definitions import Topic
from kourou_service.clock import Clock
from kourou_service.refusal import Refused

Store = Callable[[Topic, Sequence[definition_pb2.Message], int, OnStored], None]
"""Takes the topic, the messages of one call (which it uses up), the time now (ms), and whom to tell."""


class Sending:
    def __init__(
        self,
        state: State,
        definitions: Definitions,
        journal: Journal,
        clock: Clock,
        traffic: Traffic,
        recent: RecentSends | None,
    ) -> None:
        """recent: None stores a message that is sent again a second time."""
        self._state = state
        self._definitions = definitions
        self._journal = journal
        self._clock = clock
        self._traffic = traffic
        self._recent = recent
        self.refused_reason = ""
        """Why this broker takes no messages although its permission allows it; empty when it does."""
        self.by_type: dict[int, Store] = {definition_pb2.NORMAL: self._store_normal}
        """How messages of topics are stored: of all types that a topic can have."""

    def send(
        self,
        messages: Sequence[definition_pb2.Message],
        on_stored: OnStored,
        message_ids: Sequence[str] | None = None,
    ) -> None:
        """on_stored is called when all are durable. Raises Refused, and then none is stored. Uses the messages up.

        message_ids: those of the messages, from who has them anyway. Which of them were sent before are not stored
        again: what came of them then, or will, is the outcome.
        """
        if not messages:
            raise Refused(definition_pb2.BAD_REQUEST, "the request holds no message")
        if len(messages) > MAX_MESSAGES:
            raise Refused(definition_pb2.PAYLOAD_TOO_LARGE, f"over {MAX_MESSAGES} messages in one request")
        resource = messages[0].topic
        topic = self._definitions.topic(resource)
        if any(message.topic != resource for message in messages):
            raise Refused(definition_pb2.BAD_REQUEST, "the messages of one request must have one topic")
        now_ms = self._clock.now_ms()
        if self._recent is None:
            self._store(topic, messages, now_ms, on_stored)
            return
        if message_ids is None:
            message_ids = [message.system_properties.message_id for message in messages]
        if self._recent.knows_any(topic.id, message_ids):
            self._store_rest(self._recent, topic, messages, message_ids, now_ms, on_stored)
        else:
            self._store_new(self._recent, topic, messages, message_ids, now_ms, on_stored)

    def send_batch(self, batch: Batch, on_stored: OnStored) -> None:
        """The same for a batch of the stream door. Ordinary messages are stored as they came, and known again as a
        whole; others as if they had come one by one."""
        topic = self._definitions.topic(batch.topic)
        check_batch(batch)
        if batch.type not in self.by_type:
            raise Refused(definition_pb2.BAD_REQUEST, f"unknown message type {batch.type}")
        if batch.type != topic.type:
            raise Refused(
                definition_pb2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE,
                f"the topic takes {type_name(topic.type)} messages, and this is a batch of "
                f"{type_name(batch.type)} ones",
            )
        if batch.type != definition_pb2.NORMAL:
            self.send(messages_of(batch), on_stored)
            return
        check_ordinary(batch.headers)
        self._check_writable(topic)

        def store(on_stored: OnStored) -> None:
            self._journal.store_batch(topic, batch.payload, batch.body_bytes, on_stored)

        if self._recent is None:
            store(on_stored)
            return
        now_ms, count = self._clock.now_ms(), len(batch.body_bytes)
        key = batch_key(batch.headers.first_message_id, count)
        known = self._recent.find(topic.id, key, now_ms)
        if known is not None:
            self._traffic.duplicate_sends += count
            known.tell(on_stored)
            return
        self._begin(self._recent, topic, [key], now_ms, on_stored, store)

    def _store_new(
        self,
        recent: RecentSends,
        topic: Topic,
        messages: Sequence[definition_pb2.Message],
        message_ids: Sequence[str],
        now_ms: int,
        on_stored: OnStored,
    ) -> None:
        self._begin(
            recent,
            topic,
            message_ids,
            now_ms,
            on_stored,
            lambda on_stored: self._store(topic, messages, now_ms, on_stored),
        )

    @staticmethod
    def _begin(
        recent: RecentSends,
        topic: Topic,
        message_ids: Sequence[str],
        now_ms: int,
        on_stored: OnStored,
        store: Callable[[OnStored], None],
    ) -> None:
        """Stores what is known by these ids from now on."""
        sent = recent.begin(topic.id, message_ids, now_ms, on_stored)
        try:
            store(sent.stored)
        except BaseException:
            sent.forget()
            raise

    def _store_rest(
        self,
        recent: RecentSends,
        topic: Topic,
        messages: Sequence[definition_pb2.Message],
        message_ids: Sequence[str],
        now_ms: int,
        on_stored: OnStored,
    ) -> None:
        """Stores those that are not known, and tells of each where it is."""
        found = [recent.find(topic.id, message_id, now_ms) for message_id in message_ids]
        new: dict[str, list[int]] = {}
        for place, (message_id, known) in enumerate(zip(message_ids, found, strict=True)):
            if known is None:
                new.setdefault(message_id, []).append(place)
        gathered = GatheredPlaces(len(messages), on_stored)
        if new:
            firsts = [messages[places[0]] for places in new.values()]
            self._store_new(recent, topic, firsts, list(new), now_ms, gathered.takes_all([*new.values()]))
        self._traffic.duplicate_sends += len(messages) - len(new)
        for place, known in enumerate(found):
            if known is not None:
                known.tell(gathered.takes(known.which, place))

    def _store(
        self, topic: Topic, messages: Sequence[definition_pb2.Message], now_ms: int, on_stored: OnStored
    ) -> None:
        self._check_writable(topic)
        self.by_type[topic.type](topic, messages, now_ms, on_stored)

    def _store_normal(
        self, topic: Topic, messages: Sequence[definition_pb2.Message], now_ms: int, on_stored: OnStored
    ) -> None:
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
