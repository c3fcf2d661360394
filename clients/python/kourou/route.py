"""Which queues a topic has, and on which brokers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, cast

import siphash24

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.resolver import join_host_port, split_host_port

_READABLE = (v2.READ, v2.READ_WRITE)
_WRITABLE = (v2.WRITE, v2.READ_WRITE)
# The hash and the key by which Java's and Go's official clients choose a message group's queue.
_GROUP_KEY = bytes(range(16))
_siphash24 = cast("Any", siphash24).siphash24  # it has no types


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue of a topic on one broker."""

    topic: str
    broker: str
    address: str
    """Where that broker is reached: "host:port"."""
    id: int
    wire: v2.MessageQueue = field(compare=False, repr=False)
    """As the server described it; requests carry it back."""


class Route:
    """The queues of a topic, in the order of the NameServer, which is the same at all of them."""

    def __init__(self, topic: str, queues: Iterable[v2.MessageQueue]) -> None:
        known = [(queue.permission, queue_of(queue)) for queue in queues if queue.broker.endpoints.addresses]
        self.topic = topic
        self.readable = [queue for permission, queue in known if permission in _READABLE]
        self._listed = [queue for permission, queue in known if permission in _WRITABLE]
        # Broker after broker: who sends little reaches all of them all the same.
        self.writable = sorted(self._listed, key=lambda queue: (queue.id, queue.broker))
        self._address_of_broker = {queue.broker: queue.address for _, queue in known}
        self.addresses = frozenset(self._address_of_broker.values())

    def broker_at(self, address: str) -> str | None:
        """The broker's name."""
        return next((name for name, known in self._address_of_broker.items() if known == address), None)

    def queue_of_group(self, name: str) -> Queue | None:
        """Where all senders put the messages of this message group (or lite topic), as long as the writable queues
        stay the same; None when there are none."""
        if not self._listed:
            return None
        digest = cast("int", _siphash24(name.encode(), key=_GROUP_KEY).intdigest())
        return self._listed[digest % len(self._listed)]

    def address_of_broker(self, name: str) -> str | None:
        return self._address_of_broker.get(name)

    def readable_brokers(self) -> list[Queue]:
        """One readable queue of each broker: a broker answers a simple consumer for the whole of its topic."""
        return list({queue.address: queue for queue in self.readable}.values())


def queue_of(wire: v2.MessageQueue) -> Queue:
    address = address_of(wire.broker.endpoints)
    return Queue(wire.topic.name, wire.broker.name, address, wire.id, wire)


def address_of(endpoints: v2.Endpoints) -> str:
    """The "host:port" of the first address."""
    first = endpoints.addresses[0]
    return join_host_port(first.host, first.port)


def endpoints_of(address: str) -> v2.Endpoints:
    """The other way. Raises ValueError."""
    host, port = split_host_port(address)
    return v2.Endpoints(scheme=scheme_of(host), addresses=[v2.Address(host=host, port=port)])


def scheme_of(host: str) -> v2.AddressScheme:
    try:
        return v2.IPv4 if ip_address(host).version == 4 else v2.IPv6
    except ValueError:
        return v2.DOMAIN_NAME
