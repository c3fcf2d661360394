"""What this broker tells the NameServers of itself, and what is new since it told it last."""

import asyncio
from collections.abc import Iterable, Mapping

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.registry.v1 import registry_pb2
from kourou_broker.state.definitions import Name, name_of
from kourou_service.listener import Listener


class BrokerReport:
    """Updated by the broker; every NameServer's link has a Reader on it."""

    def __init__(
        self,
        *,
        cluster: str,
        name: str,
        broker_id: int,
        identity: bytes,
        started_ms: int,
        version: str,
        listeners: Iterable[Listener],
        permission: v2.Permission,
    ) -> None:
        """`identity`: 16 bytes kept in the data folder. `listeners`: as they are bound."""
        self._fixed = registry_pb2.FullState(
            cluster=cluster,
            broker_name=name,
            broker_id=broker_id,
            identity=identity,
            started_ms=started_ms,
            version=version,
            listeners=[
                registry_pb2.Listener(name=listener.name, endpoints=listener.endpoints(), tls=listener.tls)
                for listener in listeners
            ],
        )
        self._permission = permission
        self._topics: dict[Name, registry_pb2.TopicState] = {}
        self._known_brokers: frozenset[str] = frozenset()
        self._readers: dict[Reader, None] = {}  # in the order of their coming, so that a simulation replays

    @property
    def broker_name(self) -> str:
        return self._fixed.broker_name

    @property
    def topics(self) -> Mapping[Name, registry_pb2.TopicState]:
        return self._topics

    @property
    def known_brokers(self) -> frozenset[str]:
        return self._known_brokers

    def put_topic(self, topic: registry_pb2.TopicState) -> None:
        """A topic is there or has changed."""
        name = name_of(topic.topic)
        if self._topics.get(name) != topic:
            self._topics[name] = topic
            self._note(topics=(name,))

    def remove_topic(self, name: Name) -> None:
        if self._topics.pop(name, None) is not None:
            self._note(topics=(name,))

    def set_permission(self, permission: v2.Permission) -> None:
        if permission != self._permission:
            self._permission = permission
            self._note(permission=True)

    def set_known_brokers(self, names: Iterable[str]) -> None:
        """The brokers that a NameServer which just started shall wait for."""
        known = frozenset(names)
        if known != self._known_brokers:
            self._known_brokers = known
            self._note(known_brokers=True)

    def full_state(self) -> registry_pb2.FullState:
        state = registry_pb2.FullState(
            permission=self._permission, topics=self._topics.values(), known_brokers=sorted(self._known_brokers)
        )
        state.MergeFrom(self._fixed)
        return state

    def endpoints(self, listener: str) -> v2.Endpoints:
        """Of the listener with that name, else of the first one."""
        by_name = {each.name: each.endpoints for each in self._fixed.listeners}
        return by_name.get(listener) or self._fixed.listeners[0].endpoints

    def queues(self, topic: Name, listener: str) -> list[v2.MessageQueue]:
        """This broker's own queues of the topic, as a route shows them to who came by that listener."""
        state = self._topics.get(topic)
        if state is None:
            return []
        endpoints = self.endpoints(listener)
        place = v2.Broker(name=self._fixed.broker_name, id=self._fixed.broker_id, endpoints=endpoints)
        return [
            v2.MessageQueue(
                topic=state.topic,
                id=number,
                permission=state.permission,
                broker=place,
                accept_message_types=[state.type],
            )
            for number in range(state.queues)
        ]

    def reader(self) -> "Reader":
        reader = Reader(self)
        self._readers[reader] = None
        return reader

    def forget(self, reader: "Reader") -> None:
        self._readers.pop(reader, None)

    def change(self, topics: Iterable[Name], *, permission: bool, known_brokers: bool) -> registry_pb2.Change:
        """What is true now of the parts that changed."""
        change = registry_pb2.Change()
        for name in sorted(topics):
            if name in self._topics:
                change.changed_topics.append(self._topics[name])
            else:
                change.removed_topics.append(name.resource())
        if permission:
            change.permission = self._permission
        if known_brokers:
            change.known_brokers.extend(sorted(self._known_brokers))
        return change

    def _note(self, topics: Iterable[Name] = (), *, permission: bool = False, known_brokers: bool = False) -> None:
        for reader in self._readers:
            reader.note(topics, permission=permission, known_brokers=known_brokers)


class Reader:
    """One NameServer's place in the report: what it has not been told yet."""

    def __init__(self, report: BrokerReport) -> None:
        self._report = report
        self._topics: set[Name] = set()
        self._permission = False
        self._known_brokers = False
        self.news = asyncio.Event()

    def full_state(self) -> registry_pb2.FullState:
        self._clear()
        return self._report.full_state()

    def take(self) -> registry_pb2.Change | None:
        """What changed since the last full_state() or take(); None if nothing did."""
        if not self.news.is_set():
            return None
        change = self._report.change(self._topics, permission=self._permission, known_brokers=self._known_brokers)
        self._clear()
        return change

    def close(self) -> None:
        self._report.forget(self)

    def note(self, topics: Iterable[Name], *, permission: bool, known_brokers: bool) -> None:
        self._topics.update(topics)
        self._permission |= permission
        self._known_brokers |= known_brokers
        self.news.set()

    def _clear(self) -> None:
        self._topics.clear()
        self._permission = self._known_brokers = False
        self.news.clear()
