"""Topics and groups as the state holds them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.state.lite import LiteTopics
from kourou_broker.state.resent import Resent


class Name(NamedTuple):
    """The identity of a topic or group."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}%{self.name}" if self.namespace else self.name

    def resource(self) -> definition_pb2.Resource:
        return definition_pb2.Resource(resource_namespace=self.namespace, name=self.name)


def name_of(resource: definition_pb2.Resource) -> Name:
    return Name(resource.resource_namespace, resource.name)


@dataclass(slots=True)
class Carried:
    """Where the copy of a message is whose segment was dropped."""

    position: int
    length: int


@dataclass(slots=True, eq=False)
class Queue:
    topic: "Topic"
    id: int
    first_offset: int = 0
    next_offset: int = 0
    carried: dict[int, Carried] = field(default_factory=dict[int, Carried])
    resent: Resent | None = None
    """Of a dead-letter queue, once something was."""


@dataclass(slots=True, eq=False)
class Topic:
    id: int
    name: Name
    type: int
    permission: int
    definition: record_pb2.Topic
    queues: list[Queue]
    """Those of its route; lite queues are not among them."""
    lite: LiteTopics | None = None
    """Of a topic of type LITE."""

    def find_queue(self, id_: int) -> Queue | None:
        """Ordinary or lite."""
        if id_ < len(self.queues):
            return self.queues[id_]
        return self.lite.queue(id_) if self.lite is not None else None

    def queue(self, id_: int) -> Queue:
        """One that is known to be there, as where a group has progress."""
        queue = self.find_queue(id_)
        assert queue is not None, (self.name, id_)
        return queue

    def all_queues(self) -> Iterator[Queue]:
        """Ordinary and lite ones."""
        return iter(self.queues) if self.lite is None else chain(self.queues, self.lite.queues)


@dataclass(slots=True, eq=False)
class Group:
    id: int
    name: Name
    max_attempts: int
    definition: record_pb2.Group
    lite_topic: Name | None = None
    """The topic of type LITE that a group of lite consumers reads."""
