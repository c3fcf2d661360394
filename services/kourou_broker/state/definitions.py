"""Topics and groups as the state holds them."""

from dataclasses import dataclass, field
from typing import NamedTuple

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2


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


@dataclass(slots=True, eq=False)
class Topic:
    id: int
    name: Name
    type: int
    permission: int
    definition: record_pb2.Topic
    queues: list[Queue]


@dataclass(slots=True, eq=False)
class Group:
    id: int
    name: Name
    max_attempts: int
    definition: record_pb2.Group
