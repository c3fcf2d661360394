"""Definitions of topics and groups, as the brokers hold them.

Every broker keeps its own copies, each with a version; over all brokers the highest version is right, also when
it is a tombstone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kourou import names
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code, Resource
from kourou.protocol.kourou.admin.v1.admin_pb2 import Outcome
from kourou.protocol.kourou.log.v1.record_pb2 import Group, Topic
from kourou.protocol.kourou.routing.v1.routing_pb2 import BrokerInfo
from kourou_service.refusal import Refused

D = TypeVar("D", Topic, Group)
Key = tuple[str, str]


@dataclass
class Holding(Generic[D]):
    """One topic or group: what each broker that knows it holds, tombstones included."""

    by_broker: dict[str, D] = field(default_factory=dict[str, D])

    @property
    def newest(self) -> D | None:
        """At equal versions the tombstone is right, so that nothing deleted comes back."""
        return max(self.by_broker.values(), key=lambda held: (held.version, held.deleted), default=None)

    @property
    def live(self) -> D | None:
        """The newest definition, unless that is a tombstone."""
        newest = self.newest
        return None if newest is None or newest.deleted else newest

    @property
    def holders(self) -> list[str]:
        """Brokers where it is, in whatever version."""
        return sorted(name for name, held in self.by_broker.items() if not held.deleted)

    @property
    def agreeing(self) -> list[str]:
        newest = self.newest
        if newest is None or newest.deleted:
            return []
        return sorted(name for name, held in self.by_broker.items() if held.version == newest.version)

    @property
    def differing(self) -> list[str]:
        """Brokers with another version than the newest; a tombstone beside a newer tombstone is no difference."""
        newest = self.newest
        if newest is None:
            return []
        return sorted(
            name
            for name, held in self.by_broker.items()
            if held.version != newest.version and not (held.deleted and newest.deleted)
        )

    @property
    def deleted_version(self) -> int:
        """Of the newest tombstone; 0 if there is none."""
        return max((held.version for held in self.by_broker.values() if held.deleted), default=0)

    def next_version(self, now_ms: int) -> int:
        """Above every version seen, and above that of a change a broker that is away has not told, by the clock."""
        newest = self.newest
        return max(newest.version if newest else 0, now_ms) + 1


@dataclass
class Census(Generic[D]):
    """All definitions of one kind, from the brokers that answered."""

    leaders: Mapping[str, BrokerInfo]
    holdings: dict[Key, Holding[D]]
    failures: dict[str, Outcome]

    def holding(self, name: Resource) -> Holding[D]:
        return self.holdings.get(key(name)) or Holding()

    def unknown(self, code: Code, kind: str, name: Resource) -> Refused:
        """It is on no broker that answers; if none answers, that is what there is to say. `kind`: "topic", "group"."""
        failures = sorted(self.failures.values(), key=lambda outcome: outcome.broker)
        if len(failures) == len(self.leaders):
            return Refused(failures[0].status.code, failures[0].status.message)
        silent = ", ".join(outcome.broker for outcome in failures)
        where = f" on the brokers that answer (without {silent})" if silent else ""
        return Refused(code, f"there is no {kind} {name.name}{where}; `kourou {kind} list` shows what there is")


def key(name: Resource) -> Key:
    return name.resource_namespace, name.name


def check_topic_name(name: Resource) -> None:
    """Raises Refused for a name that no topic can have."""
    _refuse(Code.BAD_REQUEST, names.namespace_fault(name.resource_namespace))
    _refuse(Code.ILLEGAL_TOPIC, names.topic_fault(name.name))


def check_group_name(name: Resource) -> None:
    _refuse(Code.BAD_REQUEST, names.namespace_fault(name.resource_namespace))
    _refuse(Code.ILLEGAL_CONSUMER_GROUP, names.group_fault(name.name))


def _refuse(code: Code, fault: str | None) -> None:
    if fault:
        raise Refused(code, fault)
