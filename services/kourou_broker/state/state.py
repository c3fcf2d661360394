"""The fold: apply is the only code that changes state, and knows no clock, no chance and no disk."""

from collections.abc import Callable, Iterator

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.log.errors import NewerFormat
from kourou_broker.log.section import SECTION_HEADER_BYTES, Section
from kourou_broker.state import records
from kourou_broker.state.definitions import Carried, Group, Name, Queue, Topic, name_of
from kourou_broker.state.half_messages import HalfMessages, TransactionId
from kourou_broker.state.lite import FIRST_LITE_QUEUE, LiteTopics
from kourou_broker.state.progress import Progress, ProgressOfAll
from kourou_broker.state.records import Kind
from kourou_broker.state.resent import Resent
from kourou_broker.state.timers import Place, Timer, Timers

_QUEUED_TYPES = frozenset(definition_pb2.MessageType.values()) - {definition_pb2.MESSAGE_TYPE_UNSPECIFIED}


class UnknownRecord(NewerFormat):
    """A record that this version cannot know the meaning of: a newer version wrote it."""


class State:
    def __init__(self) -> None:
        self.topics: dict[Name, Topic] = {}
        self.groups: dict[Name, Group] = {}
        self.topics_by_id: dict[int, Topic] = {}
        self.groups_by_id: dict[int, Group] = {}
        self.topic_tombstones: dict[Name, record_pb2.Topic] = {}
        self.group_tombstones: dict[Name, record_pb2.Group] = {}
        self.progress = ProgressOfAll()
        self.timers: dict[int, Timers] = {}  # by topic id, of those that hold delayed messages
        self.half_messages = HalfMessages()
        self.broker = record_pb2.Broker(permission=definition_pb2.READ_WRITE)
        self.lite_topics = 0
        """How many there are, in all topics."""
        self.next_topic_id = 1
        self.next_group_id = 1
        self._appliers: dict[int, Callable[[Section, int], None]] = {
            Kind.MESSAGES: self._messages,
            Kind.BATCH: self._messages,
            Kind.TOPIC: self._topic,
            Kind.GROUP: self._group,
            Kind.LEASE: self._lease,
            Kind.ACK: self._ack,
            Kind.OFFSET: self._offset,
            Kind.TRIM: self._trim,
            Kind.RESENT: self._resend,
            Kind.CARRY: self._carry,
            Kind.BROKER: self._broker,
            Kind.HELD: self._hold,
            Kind.HELD_CARRIED: self._held_carried,
            Kind.FIRED: self._timers_ended,
            Kind.RECALLED: self._timers_ended,
            Kind.LITE_TOPIC: self._lite_topic,
            Kind.TRANSACTION_END: self._transaction_end,
            Kind.TRANSACTION_CHECKED: self._transaction_checked,
        }

    def apply(self, section: Section, position: int) -> None:
        """position is the section's place in the log; only CARRY, HELD and HELD_CARRIED records need it."""
        applier = self._appliers.get(section.kind)
        if applier is None:
            raise UnknownRecord(f"record kind {section.kind} at log position {position} is of a newer version")
        applier(section, position)

    def queue(self, topic_id: int, queue: int) -> Queue | None:
        topic = self.topics_by_id.get(topic_id)
        return topic.find_queue(queue) if topic is not None else None

    def progress_of(self, group: Group, topic: Topic) -> Iterator[Progress]:
        for queue in topic.all_queues():
            progress = self.progress.get((group.id, topic.id, queue.id))
            if progress is not None:
                yield progress

    def _messages(self, section: Section, position: int) -> None:
        if section.type not in _QUEUED_TYPES:
            raise UnknownRecord(f"message type {section.type} at log position {position} is of a newer version")
        queue = self.queue(section.topic, section.queue)
        if queue is None:
            return  # the topic was deleted in the turn that stored them
        # A gap is where a repair of the log has skipped damaged frames.
        assert section.base >= queue.next_offset, (section.base, queue.next_offset)
        queue.next_offset = section.base + section.count

    def _topic(self, section: Section, position: int) -> None:
        definition = record_pb2.Topic.FromString(section.payload)
        name = name_of(definition.name)
        self.next_topic_id = max(self.next_topic_id, definition.id + 1)
        known = self.topics.get(name)
        if known is not None and (definition.deleted or known.id != definition.id):
            self._forget_topic(known)
            known = None
        if definition.deleted:
            self.topic_tombstones[name] = definition
            return
        self.topic_tombstones.pop(name, None)
        if known is None:
            known = Topic(definition.id, name, definition.type, definition.permission, definition, [])
            known.lite = LiteTopics() if definition.type == definition_pb2.LITE else None
            self.topics[name] = self.topics_by_id[known.id] = known
        known.type, known.permission, known.definition = definition.type, definition.permission, definition
        known.queues.extend(Queue(known, id_) for id_ in range(len(known.queues), definition.queues))

    def _forget_topic(self, topic: Topic) -> None:
        del self.topics[topic.name], self.topics_by_id[topic.id]
        self.timers.pop(topic.id, None)
        self.lite_topics -= len(topic.lite.by_name) if topic.lite is not None else 0
        for queue in topic.all_queues():
            self.progress.forget_queue(topic.id, queue.id)
        self.half_messages.forget_topic(topic.id)

    def _group(self, section: Section, position: int) -> None:
        definition = record_pb2.Group.FromString(section.payload)
        name = name_of(definition.name)
        self.next_group_id = max(self.next_group_id, definition.id + 1)
        known = self.groups.get(name)
        if definition.deleted:
            if known is not None:
                self._forget_group(known)
            self.group_tombstones[name] = definition
            return
        self.group_tombstones.pop(name, None)
        if known is None:
            known = Group(definition.id, name, definition.retry.max_attempts, definition)
            self.groups[name] = self.groups_by_id[known.id] = known
        known.max_attempts, known.definition = definition.retry.max_attempts, definition
        known.lite_topic = name_of(definition.lite.topic) if definition.HasField("lite") else None

    def _forget_group(self, group: Group) -> None:
        del self.groups[group.name], self.groups_by_id[group.id]
        for key in [key for key in self.progress if key[0] == group.id]:
            del self.progress[key]

    def _progress(self, group_id: int, section: Section) -> Progress | None:
        key = (group_id, section.topic, section.queue)
        progress = self.progress.get(key)
        if progress is None:
            queue = self.queue(section.topic, section.queue)
            if queue is None or group_id not in self.groups_by_id:
                return None  # topic or group was deleted in the same turn
            progress = self.progress[key] = Progress(*key, queue.first_offset)
        return progress

    def _lease(self, section: Section, position: int) -> None:
        group_id, high, lease = records.read_lease(section)
        progress = self._progress(group_id, section)
        if progress is not None:
            progress.lend(lease, high)

    def _ack(self, section: Section, position: int) -> None:
        group_id, offsets = records.read_ack(section)
        progress = self._progress(group_id, section)
        if progress is not None:
            progress.settle(offsets)

    def _offset(self, section: Section, position: int) -> None:
        group_id, to = records.read_offset(section)
        progress = self._progress(group_id, section)
        if progress is not None:
            progress.set(to)

    def _resend(self, section: Section, position: int) -> None:
        group_id, (topic_id, queue_id, offset) = records.read_resent(section)
        letters, origin = self.queue(section.topic, section.queue), self.queue(topic_id, queue_id)
        if letters is None or origin is None or group_id not in self.groups_by_id:
            return  # deleted in the same turn
        if letters.resent is None:
            letters.resent = Resent(letters.first_offset)
        letters.resent.add(section.base)
        key = (group_id, topic_id, queue_id)
        progress = self.progress.get(key)
        if progress is None:
            progress = self.progress[key] = Progress(*key, origin.first_offset)
        progress.resend(offset)

    def _trim(self, section: Section, position: int) -> None:
        log_start, rows = records.read_trim(section)
        for topic_id, queue_id, first_offset in rows:
            queue = self.queue(topic_id, queue_id)
            if queue is None:
                continue
            queue.first_offset = max(queue.first_offset, first_offset)
            if queue.resent is not None:
                queue.resent.trim(queue.first_offset)
            if queue.carried:
                queue.carried = {at: copy for at, copy in queue.carried.items() if copy.position >= log_start}
            for progress in self.progress.of_queue(topic_id, queue_id):
                progress.trim(queue.first_offset)

    def _carry(self, section: Section, position: int) -> None:
        queue = self.queue(section.topic, section.queue)
        if queue is not None:
            queue.carried[section.base] = Carried(position, SECTION_HEADER_BYTES + len(section.payload))

    def _hold(self, section: Section, position: int) -> None:
        if section.type == definition_pb2.TRANSACTION:
            hold = self.half_messages.add
        elif section.type == definition_pb2.DELAY:
            hold = self._delay
        else:
            raise UnknownRecord(f"held messages of type {section.type} at position {position} are of a newer version")
        if section.topic in self.topics_by_id:
            hold(section, position)

    def _delay(self, section: Section, position: int) -> None:
        whens, _stored_ms, _messages = records.read_held(section)
        places = [Place(position, index) for index in range(section.count)]
        self.timers.setdefault(section.topic, Timers()).add(map(Timer, whens, places, places))

    def _held_carried(self, section: Section, position: int) -> None:
        if section.type == definition_pb2.TRANSACTION:
            self.half_messages.carried(section, position)
            return
        whens, _stored_ms, _messages = records.read_held(section)
        timers = self.timers.get(section.topic)
        if timers is not None:
            for index, (due_ms, origin) in enumerate(zip(whens, records.read_origins(section), strict=True)):
                timers.move(due_ms, origin, Place(position, index))

    def _timers_ended(self, section: Section, position: int) -> None:
        timers = self.timers.get(section.topic)
        if timers is None:
            return
        for due_ms, origin in records.read_timers(section):
            timers.remove(due_ms, origin)
        if not timers:
            del self.timers[section.topic]

    def _transaction_end(self, section: Section, position: int) -> None:
        for transaction in records.read_transaction_end(section):
            self.half_messages.end(section.topic, TransactionId(*transaction))

    def _transaction_checked(self, section: Section, position: int) -> None:
        transactions, _client_id, next_check_ms = records.read_transaction_checked(section)
        for transaction in transactions:
            self.half_messages.checked(section.topic, TransactionId(*transaction), next_check_ms)

    def _broker(self, section: Section, position: int) -> None:
        self.broker = record_pb2.Broker.FromString(section.payload)

    def _lite_topic(self, section: Section, position: int) -> None:
        saved = record_pb2.LiteTopic.FromString(section.payload)
        topic = self.topics_by_id.get(saved.topic)
        if topic is None or topic.lite is None:
            return  # the topic was deleted in the same turn
        if section.type:
            self._forget_lite_topic(topic.lite, saved.name)
            return
        queue = self.add_lite_queues(topic, topic.lite, saved.queue)
        self.lite_topics += topic.lite.name(queue, saved.name, saved.last_stored_ms)

    def add_lite_queues(self, topic: Topic, lite: LiteTopics, id_: int) -> Queue:
        """-> the lite queue with that id, made if it is new."""
        for new in range(FIRST_LITE_QUEUE + len(lite.queues), id_ + 1):
            lite.add_queue(Queue(topic, new))
        return topic.queue(id_)

    def _forget_lite_topic(self, lite: LiteTopics, name: str) -> None:
        queue = lite.drop(name)
        if queue is not None:
            self.lite_topics -= 1
            self.progress.forget_queue(queue.topic.id, queue.id)
