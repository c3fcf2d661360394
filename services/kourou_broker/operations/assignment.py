"""Which member of a group owns which queues.

Exclusive: each queue belongs to one member; the answer is a pure function of the sorted members and the sorted queues
of the whole route, so every broker gives the same one. Shared: nobody owns anything and all compete.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.operations.clients import Clients
from kourou_broker.state.definitions import Group, Topic


class QueueId(NamedTuple):
    """A queue of the cluster; sorts as the route does."""

    broker: str
    queue: int


def share(member: int, members: int, queues: int) -> range:
    """Which of the sorted queues the member with this number among the sorted members owns.

    Neighbours; the first members have one more where it does not come out even, and surplus members none.
    """
    each, rest = divmod(queues, members)
    start = member * each + min(member, rest)
    return range(start, start + each + (member < rest))


def holder(queue: int, members: int, queues: int) -> int:
    """The number of the member in whose share the queue is."""
    each, rest = divmod(queues, members)
    larger = rest * (each + 1)
    return queue // (each + 1) if queue < larger else rest + (queue - larger) // each


class Assignments:
    def __init__(self, clients: Clients, broker: str) -> None:
        self._clients = clients
        self._broker = broker
        self.route: Callable[[Topic], Sequence[QueueId]] = self._own_queues
        """A topic's readable queues over all brokers, sorted."""

    def is_shared(self, group: Group, topic: Topic) -> bool:
        """By the group's setting, or because a simple consumer is in it: it asks all queues alike.

        The queues of a PRIORITY topic are levels: whoever had only low ones would work while urgent messages wait.
        What the members of a lite group read is no matter of queues.
        """
        return (
            topic.type == definition_pb2.PRIORITY
            or group.lite_topic is not None
            or group.definition.assignment == record_pb2.ASSIGNMENT_SHARED
            or self._clients.has_simple_consumer(group.name)
        )

    def queues_of(self, group: Group, topic: Topic, client_id: str) -> Sequence[QueueId] | None:
        """What the client owns over all brokers; None: the group shares."""
        if self.is_shared(group, topic):
            return None
        members = self._clients.push_consumers(group.name, topic.name)
        member = bisect_left(members, client_id)
        if member == len(members) or members[member] != client_id:
            return ()
        queues = self.route(topic)
        owned = share(member, len(members), len(queues))
        return queues[owned.start : owned.stop]

    def owners(self, group: Group, topic: Topic) -> dict[int, str] | None:
        """Who owns which of this broker's queues; None: the group shares."""
        if self.is_shared(group, topic):
            return None
        members = self._clients.push_consumers(group.name, topic.name)
        if not members:
            return {}
        queues = self.route(topic)
        return {
            queue.queue: members[holder(number, len(members), len(queues))]
            for number, queue in enumerate(queues)
            if queue.broker == self._broker
        }

    def _own_queues(self, topic: Topic) -> list[QueueId]:
        return [QueueId(self._broker, queue.id) for queue in topic.queues]
