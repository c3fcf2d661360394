"""What a NameServer knows: the brokers that registered, with their topics and queues. In memory, without I/O.

Time comes in as an argument: seconds of the loop's clock. A broker's incarnation is its identity and the time of its
start; one incarnation may have several streams (a NameServer that is reached by two addresses), each a session.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.registry.v1 import registry_pb2
from kourou_namesrv.reports import (
    MAX_BROKERS,
    MAX_TOPICS_A_BROKER,
    RegistrationRefused,
    check_change,
    check_full_state,
)

MAX_SESSIONS_A_BROKER = 16


class UnknownSession(Exception):
    """The session's broker was removed or replaced."""


class TopicKey(NamedTuple):
    namespace: str
    name: str

    @classmethod
    def of(cls, resource: v2.Resource) -> "TopicKey":
        return cls(resource.resource_namespace, resource.name)

    def __str__(self) -> str:
        return f"{self.namespace}%{self.name}" if self.namespace else self.name


class BrokerKey(NamedTuple):
    name: str
    id: int


@dataclass
class Broker:
    """One registered broker. Read it freely; only the registry changes it."""

    key: BrokerKey
    cluster: str
    identity: bytes
    started_ms: int
    version: str
    listeners: dict[str, registry_pb2.Listener]
    """By name."""
    permission: v2.Permission
    topics: dict[TopicKey, registry_pb2.TopicState]
    known_brokers: frozenset[str]
    last_heard_s: float
    sessions: set[int] = field(default_factory=set[int])
    hidden_from_writers: bool = False
    """Its streams broke and the grace is over: its queues are for reading, as long as it is not removed."""
    queues: int = 0
    """Of all its topics."""
    heartbeats: int = 0
    """Heard of it, as long as it is registered."""

    @property
    def connected(self) -> bool:
        return bool(self.sessions)


class Registry:
    def __init__(self, eviction_s: float) -> None:
        """A broker that is not heard of for longer than `eviction_s` is removed by the next scan."""
        self._eviction_s = eviction_s
        self._brokers: dict[BrokerKey, Broker] = {}
        self._holders: dict[TopicKey, dict[BrokerKey, registry_pb2.TopicState]] = {}
        self._sessions: dict[int, Broker] = {}
        self._next_session = 1
        self._listeners: list[Callable[[Iterable[TopicKey]], None]] = []

    def on_change(self, listener: Callable[[Iterable[TopicKey]], None]) -> None:
        """Calls back after each change, with the topics whose routes may differ now."""
        self._listeners.append(listener)

    @property
    def brokers(self) -> list[Broker]:
        """In the order of name and id."""
        return [self._brokers[key] for key in sorted(self._brokers)]

    def broker(self, key: BrokerKey) -> Broker | None:
        return self._brokers.get(key)

    @property
    def topics(self) -> int:
        """How many topics some broker holds."""
        return len(self._holders)

    def holders(self, topic: TopicKey) -> Iterator[tuple[Broker, registry_pb2.TopicState]]:
        """The brokers that hold the topic, in the order of name and id."""
        holders = self._holders.get(topic, {})
        for key in sorted(holders):
            yield self._brokers[key], holders[key]

    def register(self, state: registry_pb2.FullState, now_s: float) -> int:
        """A broker's first frame. Returns the number of its session. Raises RegistrationRefused."""
        key = BrokerKey(state.broker_name, state.broker_id)
        check_full_state(state)
        old = self._brokers.get(key)
        if old is None and len(self._brokers) >= MAX_BROKERS:
            raise RegistrationRefused(f"this NameServer keeps at most {MAX_BROKERS} brokers")
        if old is not None:
            self._check_successor(old, state, now_s)
        topics = {TopicKey.of(topic.topic): topic for topic in state.topics}
        broker = Broker(
            key=key,
            cluster=state.cluster,
            identity=state.identity,
            started_ms=state.started_ms,
            version=state.version,
            listeners={listener.name: listener for listener in state.listeners},
            permission=state.permission,
            topics=topics,
            known_brokers=frozenset(state.known_brokers),
            last_heard_s=now_s,
            queues=sum(topic.queues for topic in topics.values()),
        )
        if old is not None:
            self._replace(old, broker)
        session, self._next_session = self._next_session, self._next_session + 1
        broker.sessions.add(session)
        for each in broker.sessions:
            self._sessions[each] = broker
        self._brokers[key] = broker
        for topic, topic_state in broker.topics.items():
            self._holders.setdefault(topic, {})[key] = topic_state
        self._changed({*broker.topics, *(old.topics if old is not None else ())})
        return session

    def change(self, session: int, change: registry_pb2.Change, now_s: float) -> None:
        """Raises UnknownSession, or RegistrationRefused when the change is not legal."""
        broker = self._heard(session, now_s)
        check_change(change)
        changed = {TopicKey.of(topic.topic): topic for topic in change.changed_topics}
        if len(broker.topics.keys() | changed.keys()) > MAX_TOPICS_A_BROKER:
            raise RegistrationRefused(f"a broker may hold at most {MAX_TOPICS_A_BROKER} topics")
        removed = [TopicKey.of(resource) for resource in change.removed_topics]
        affected = {*changed, *removed}
        for topic, state in changed.items():
            before = broker.topics.get(topic)
            broker.queues += state.queues - (before.queues if before is not None else 0)
            broker.topics[topic] = state
            self._holders.setdefault(topic, {})[broker.key] = state
        for topic in removed:
            gone = broker.topics.pop(topic, None)
            if gone is not None:
                broker.queues -= gone.queues
                self._forget_holder(topic, broker.key)
        if change.HasField("permission"):
            broker.permission = change.permission
            affected |= broker.topics.keys()
        if change.known_brokers:
            broker.known_brokers = frozenset(change.known_brokers)
        self._changed(affected)

    def heartbeat(self, session: int, now_s: float) -> None:
        """Raises UnknownSession."""
        self._heard(session, now_s).heartbeats += 1

    def goodbye(self, session: int) -> None:
        """The broker stops cleanly: it is gone at once."""
        broker = self._sessions.get(session)
        if broker is not None:
            self._remove(broker)

    def disconnected(self, session: int) -> Broker | None:
        """The session's stream broke. Returns the broker if that was its last one."""
        broker = self._sessions.pop(session, None)
        if broker is None:
            return None
        broker.sessions.discard(session)
        return None if broker.sessions else broker

    def hide_from_writers(self, broker: Broker) -> None:
        """The grace after its last stream broke is over; nothing happens if it is back or gone."""
        if self._brokers.get(broker.key) is broker and not broker.connected:
            broker.hidden_from_writers = True
            self._changed(broker.topics)

    def scan(self, now_s: float) -> list[Broker]:
        """Removes and returns the brokers that were silent for too long."""
        silent = [broker for broker in self.brokers if now_s - broker.last_heard_s > self._eviction_s]
        for broker in silent:
            self._remove(broker)
        return silent

    def is_live(self, session: int) -> bool:
        return session in self._sessions

    def _check_successor(self, old: Broker, state: registry_pb2.FullState, now_s: float) -> None:
        name = f"{old.key.name} (id {old.key.id})"
        if old.identity != state.identity:
            heard = "is connected" if old.connected else f"was heard of {now_s - old.last_heard_s:.0f} s ago"
            raise RegistrationRefused(
                f"another broker with the name {name} {heard}; names are free again when it stops cleanly, or"
                f" {self._eviction_s:.0f} s after it was last heard of"
            )
        if state.started_ms < old.started_ms:
            raise RegistrationRefused(f"a newer start of {name}, with the same data folder, is registered")
        if state.started_ms == old.started_ms and len(old.sessions) >= MAX_SESSIONS_A_BROKER:
            raise RegistrationRefused(f"{name} has {MAX_SESSIONS_A_BROKER} streams to this NameServer already")

    def _replace(self, old: Broker, new: Broker) -> None:
        new.heartbeats = old.heartbeats
        if old.started_ms == new.started_ms:
            new.sessions |= old.sessions  # another stream of the same process
        else:
            self._drop_sessions(old)
        for topic in old.topics:
            if topic not in new.topics:
                self._forget_holder(topic, old.key)

    def _remove(self, broker: Broker) -> None:
        self._drop_sessions(broker)
        del self._brokers[broker.key]
        for topic in broker.topics:
            self._forget_holder(topic, broker.key)
        self._changed(broker.topics)

    def _drop_sessions(self, broker: Broker) -> None:
        for session in broker.sessions:
            self._sessions.pop(session, None)
        broker.sessions.clear()

    def _forget_holder(self, topic: TopicKey, key: BrokerKey) -> None:
        holders = self._holders[topic]
        del holders[key]
        if not holders:
            del self._holders[topic]

    def _heard(self, session: int, now_s: float) -> Broker:
        broker = self._sessions.get(session)
        if broker is None:
            raise UnknownSession
        broker.last_heard_s = now_s
        return broker

    def _changed(self, topics: Iterable[TopicKey]) -> None:
        for listener in self._listeners:
            listener(topics)
