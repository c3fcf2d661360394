"""Routes, computed from the registry: which queues a topic has, where, and what may be done with them.

The same brokers give the same queues in the same order, and the same version, at every NameServer.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.registry.v1 import registry_pb2
from kourou_namesrv.registry import Broker, BrokerKey, Registry, TopicKey
from kourou_service.listener import Way

LEADER_ID = 0
MAX_CACHED_ROUTES = 100_000

_READ, _WRITE = 1, 2
_BITS = {v2.READ: _READ, v2.WRITE: _WRITE, v2.READ_WRITE: _READ | _WRITE}
_PERMISSIONS = {0: v2.NONE, _READ: v2.READ, _WRITE: v2.WRITE, _READ | _WRITE: v2.READ_WRITE}


@dataclass(frozen=True)
class Route:
    version: int
    """A fingerprint, never zero."""
    queues: tuple[v2.MessageQueue, ...]
    """Ordered by broker name and queue id; empty when no broker that holds the topic can be reached that way."""


class Routes:
    def __init__(self, registry: Registry, fallback_listener: str) -> None:
        self._registry = registry
        self._fallback_listener = fallback_listener
        self._cache: dict[tuple[TopicKey, Way], Route] = {}
        self._cached_ways: set[Way] = set()
        registry.on_change(self._forget)

    def route(self, topic: TopicKey, way: Way) -> Route:
        """The route for a client that came this way."""
        key = (topic, way)
        route = self._cache.get(key)
        if route is None:
            route = self._compute(topic, way)
            if len(self._cache) < MAX_CACHED_ROUTES and route.queues:
                self._cache[key] = route
                self._cached_ways.add(way)
        return route

    def endpoints(self, broker: Broker, way: Way) -> v2.Endpoints | None:
        return choose_endpoints(broker.listeners, way, self._fallback_listener)

    def broker_endpoints(self, name: str, way: Way) -> v2.Endpoints | None:
        """Of the leader of the broker of that name; None if there is none that can be reached this way."""
        broker = self._registry.broker(BrokerKey(name, LEADER_ID))
        return self.endpoints(broker, way) if broker is not None else None

    def holds(self, topic: TopicKey) -> bool:
        """Whether any broker holds the topic, whichever way it is reached."""
        return any(True for _ in self._registry.holders(topic))

    def leader_endpoints(self, topic: TopicKey, way: Way, as_seen: Way) -> list[tuple[v2.Endpoints, v2.Endpoints]]:
        """The addresses of the brokers that lead queues of the topic, connected ones first: for who comes this way, and
        as those see them who come the other way. Brokers that have only one of the two are left out."""
        leaders = [broker for broker, _ in self._registry.holders(topic) if broker.key.id == LEADER_ID]
        leaders.sort(key=lambda broker: not broker.connected)
        pairs = ((self.endpoints(broker, way), self.endpoints(broker, as_seen)) for broker in leaders)
        return [(reached, seen) for reached, seen in pairs if reached is not None and seen is not None]

    def _compute(self, topic: TopicKey, way: Way) -> Route:
        queues: list[v2.MessageQueue] = []
        for broker, state in self._registry.holders(topic):
            endpoints = self.endpoints(broker, way)
            if broker.key.id != LEADER_ID or endpoints is None:
                continue
            place = v2.Broker(name=broker.key.name, id=LEADER_ID, endpoints=endpoints)
            permission = smaller(broker.permission, state.permission)
            if broker.hidden_from_writers:
                permission = smaller(permission, v2.READ)
            for number in range(state.queues):
                queues.append(
                    v2.MessageQueue(
                        topic=state.topic,
                        id=number,
                        permission=permission,
                        broker=place,
                        accept_message_types=[state.type],
                    )
                )
        return Route(_fingerprint(queues), tuple(queues))

    def _forget(self, topics: Iterable[TopicKey]) -> None:
        for topic in topics:
            for way in self._cached_ways:
                self._cache.pop((topic, way), None)


def smaller(a: v2.Permission, b: v2.Permission) -> v2.Permission:
    """What both permit."""
    return _PERMISSIONS[_BITS.get(a, 0) & _BITS.get(b, 0)]


def choose_endpoints(listeners: Mapping[str, registry_pb2.Listener], way: Way, fallback: str) -> v2.Endpoints | None:
    """A broker without a listener of that name is shown by another address it has: an address that may not be reached
    is an error a user can see, a route without the broker is not. But never plaintext for TLS, or the other way round:
    None if the broker has nothing else."""
    fitting = {name: listener.endpoints for name, listener in listeners.items() if listener.tls == way.tls}
    return fitting.get(way.name) or fitting.get(fallback) or next(iter(fitting.values()), None)


def _fingerprint(queues: Iterable[v2.MessageQueue]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for queue in queues:
        serialized = queue.SerializeToString(deterministic=True)
        digest.update(len(serialized).to_bytes(4, "big") + serialized)
    return int.from_bytes(digest.digest(), "big") or 1
