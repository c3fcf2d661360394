"""Topics, groups and the broker's own permission: kept in the log, changed by version."""

from collections.abc import Callable

from kourou.limits import MAX_QUEUES
from kourou.names import dead_letter_topic, group_fault, namespace_fault, topic_fault
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.operations.errors import group_not_found, topic_not_found
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.lite_groups import lite_topics_of
from kourou_broker.state import State, records
from kourou_broker.state.definitions import Group, Name, Topic, name_of
from kourou_service.client_settings import DEFAULT_MAX_ATTEMPTS, default_retry
from kourou_service.clock import Clock
from kourou_service.group_rules import check_group
from kourou_service.lite_rules import check_expiration
from kourou_service.refusal import Refused

MAX_TOPICS = 100_000
MAX_GROUPS = 100_000


class Definitions:
    def __init__(self, state: State, journal: Journal, clock: Clock, *, auto_create_groups: bool) -> None:
        self._state = state
        self._journal = journal
        self._clock = clock
        self._auto_create_groups = auto_create_groups
        self.on_topic: Callable[[Name], None] = lambda _name: None
        """Called when a topic is new, changed or deleted, or (with the empty name) the broker's permission is."""
        self.on_group: Callable[[Name], None] = lambda _name: None

    def topic(self, resource: definition_pb2.Resource) -> Topic:
        """The topic that a request names. Raises Refused."""
        name = Name(resource.resource_namespace, resource.name)
        topic = self._state.topics.get(name)
        if topic is None:
            if fault := topic_fault(name.name) or namespace_fault(name.namespace):
                raise Refused(definition_pb2.ILLEGAL_TOPIC, fault)
            raise topic_not_found(name)
        return topic

    def readable_topic(self, resource: definition_pb2.Resource) -> Topic:
        """The same for who wants to read it here. Raises Refused where nobody may."""
        topic = self.topic(resource)
        if not (can_read(topic.permission) and can_read(self._state.broker.permission)):
            raise Refused(definition_pb2.FORBIDDEN, f"topic {topic.name} has no read permission on this broker")
        return topic

    def group(self, resource: definition_pb2.Resource) -> Group:
        """The consumer group that a request names, made now if that is the setting. Raises Refused."""
        return self._known_group(resource) or self._make_group(resource, None)

    def lite_group(self, resource: definition_pb2.Resource, topic: definition_pb2.Resource) -> Group:
        """The same for a lite consumer, which reads that topic: a group that is made now is bound to it."""
        known = self._known_group(resource)
        if known is not None:
            return known
        if self._auto_create_groups:
            lite_topics_of(self.topic(topic))
        return self._make_group(resource, record_pb2.LiteGroup(topic=topic))

    def group_reading(self, topic: Topic, resource: definition_pb2.Resource) -> Group:
        """The same for a consumer of which no more is known than that it reads the topic."""
        return self.group(resource) if topic.lite is None else self.lite_group(resource, topic.name.resource())

    def existing_group(self, resource: definition_pb2.Resource) -> Group:
        """The group that a request names, which makes none: for operators. Raises Refused."""
        group = self._known_group(resource)
        if group is None:
            raise group_not_found(name_of(resource))
        return group

    def _known_group(self, resource: definition_pb2.Resource) -> Group | None:
        return self._state.groups.get(Name(resource.resource_namespace, resource.name))

    def _make_group(self, resource: definition_pb2.Resource, lite: record_pb2.LiteGroup | None) -> Group:
        name = name_of(resource)
        if fault := group_fault(name.name) or namespace_fault(name.namespace):
            raise Refused(definition_pb2.ILLEGAL_CONSUMER_GROUP, fault)
        if not self._auto_create_groups:
            raise group_not_found(name)
        deleted_version = _version_of(self._state.group_tombstones.get(name))
        self.put_group(
            record_pb2.Group(
                name=name.resource(),
                order=record_pb2.ORDER_CONCURRENT,
                assignment=record_pb2.ASSIGNMENT_EXCLUSIVE,
                retry=default_retry(),
                lite=lite,
                version=self._version_after(deleted_version),
                deleted_version=deleted_version,
            )
        )
        return self._state.groups[name]

    def dead_letter_topic(self, group: Group) -> Topic:
        """Where the group's dead letters go; made when the first one comes."""
        name = Name(group.name.namespace, dead_letter_topic(group.name.name))
        if name not in self._state.topics:
            deleted_version = _version_of(self._state.topic_tombstones.get(name))
            self.put_topic(
                record_pb2.Topic(
                    name=name.resource(),
                    type=definition_pb2.NORMAL,
                    queues=1,
                    permission=definition_pb2.READ_WRITE,
                    version=self._version_after(deleted_version),
                    deleted_version=deleted_version,
                )
            )
        return self._state.topics[name]

    def _version_after(self, deleted_version: int) -> int:
        """Of what the broker makes by itself: newer than a tombstone, whatever the clocks say."""
        return max(self._clock.now_ms(), deleted_version + 1)

    def put_topic(self, definition: record_pb2.Topic) -> record_pb2.Topic:
        """Stores the definition or tombstone if its version is the highest; -> the one that holds now.

        What is held of a topic that was deleted meanwhile and made again goes first.
        """
        name = name_of(definition.name)
        known = self._state.topics.get(name)
        if known is not None and known.definition.version < definition.deleted_version:
            self.put_topic(record_pb2.Topic(name=definition.name, version=definition.deleted_version, deleted=True))
            known = None
        current = known.definition if known is not None else self._state.topic_tombstones.get(name)
        if current is not None and current.version >= definition.version:
            return current
        if fault := topic_fault(name.name) or namespace_fault(name.namespace):
            raise Refused(definition_pb2.ILLEGAL_TOPIC, fault)
        self._journal.require_room()
        stored = record_pb2.Topic()
        stored.CopyFrom(definition)
        if not stored.deleted:
            self._check_topic(stored, known)
        stored.id = known.id if known is not None else self._state.next_topic_id
        stored.changed_ms = self._clock.now_ms()
        self._journal.emit(records.topic(stored))
        self.on_topic(name)
        return stored

    def _check_topic(self, definition: record_pb2.Topic, known: Topic | None) -> None:
        if definition.type not in _TYPES:
            raise Refused(definition_pb2.BAD_REQUEST, f"unknown topic type {definition.type}")
        if known is not None and definition.type != known.type:
            raise Refused(definition_pb2.BAD_REQUEST, f"topic {known.name} has another type, which cannot change")
        if not 1 <= definition.queues <= MAX_QUEUES:
            raise Refused(definition_pb2.BAD_REQUEST, f"a topic has 1 to {MAX_QUEUES} queues, not {definition.queues}")
        if known is not None and definition.queues < len(known.queues):
            raise Refused(definition_pb2.BAD_REQUEST, f"topic {known.name} has {len(known.queues)} queues: not fewer")
        check_expiration(definition)
        if definition.permission not in _PERMISSIONS:
            raise Refused(definition_pb2.BAD_REQUEST, f"unknown permission {definition.permission}")
        if known is None and len(self._state.topics) >= MAX_TOPICS:
            raise Refused(definition_pb2.TOO_MANY_REQUESTS, f"the broker holds {MAX_TOPICS} topics, its limit")

    def put_group(self, definition: record_pb2.Group) -> record_pb2.Group:
        """Stores the definition or tombstone if its version is the highest; -> the one that holds now.

        So it is with the progress of a group that was deleted meanwhile and made again.
        """
        name = name_of(definition.name)
        known = self._state.groups.get(name)
        if known is not None and known.definition.version < definition.deleted_version:
            self.put_group(record_pb2.Group(name=definition.name, version=definition.deleted_version, deleted=True))
            known = None
        current = known.definition if known is not None else self._state.group_tombstones.get(name)
        if current is not None and current.version >= definition.version:
            return current
        if fault := group_fault(name.name) or namespace_fault(name.namespace):
            raise Refused(definition_pb2.ILLEGAL_CONSUMER_GROUP, fault)
        self._journal.require_room()
        stored = record_pb2.Group()
        stored.CopyFrom(definition)
        if not stored.deleted:
            self._check_group(stored, known)
        stored.id = known.id if known is not None else self._state.next_group_id
        stored.changed_ms = self._clock.now_ms()
        self._journal.emit(records.group(stored))
        self.on_group(name)
        return stored

    def _check_group(self, definition: record_pb2.Group, known: Group | None) -> None:
        """What is not set has its default: so it is with groups of earlier versions."""
        retry = definition.retry
        retry.max_attempts = retry.max_attempts or DEFAULT_MAX_ATTEMPTS
        if retry.WhichOneof("strategy") is None:
            retry.MergeFrom(default_retry(retry.max_attempts))
        definition.order = definition.order or record_pb2.ORDER_CONCURRENT
        definition.assignment = definition.assignment or record_pb2.ASSIGNMENT_EXCLUSIVE
        definition.start = definition.start or record_pb2.START_FIRST
        check_group(definition)
        if known is not None and known.lite_topic != (
            name_of(definition.lite.topic) if definition.HasField("lite") else None
        ):
            raise Refused(definition_pb2.BAD_REQUEST, f"group {known.name} reads other lite topics, or none: for good")
        if known is None and len(self._state.groups) >= MAX_GROUPS:
            raise Refused(definition_pb2.TOO_MANY_REQUESTS, f"the broker holds {MAX_GROUPS} groups, its limit")

    def set_permission(self, permission: int) -> None:
        """What the broker as a whole permits."""
        if permission not in _PERMISSIONS:
            raise Refused(definition_pb2.BAD_REQUEST, f"unknown permission {permission}")
        self._journal.require_room()
        changed = record_pb2.Broker()
        changed.CopyFrom(self._state.broker)
        changed.permission = permission  # type: ignore[assignment]
        self._journal.emit(records.broker(changed))
        self.on_topic(Name("", ""))


def _version_of(tombstone: record_pb2.Topic | record_pb2.Group | None) -> int:
    return tombstone.version if tombstone is not None else 0


_TYPES = frozenset(definition_pb2.MessageType.values()) - {definition_pb2.MESSAGE_TYPE_UNSPECIFIED}
_PERMISSIONS = frozenset((definition_pb2.NONE, definition_pb2.READ, definition_pb2.WRITE, definition_pb2.READ_WRITE))
_READABLE = frozenset((definition_pb2.READ, definition_pb2.READ_WRITE))
_WRITABLE = frozenset((definition_pb2.WRITE, definition_pb2.READ_WRITE))


def can_read(permission: int) -> bool:
    return permission in _READABLE


def can_write(permission: int) -> bool:
    return permission in _WRITABLE
