"""Which member of a group owns which queues.

Exclusive: each queue belongs to one member; the answer is a pure function of the sorted members and the sorted queues
of the whole route, so every broker gives the same one. Shared: nobody owns anything and all compete.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.operations.clients import Client, Clients
from kourou_broker.state.definitions import Group, Topic


class QueueId(NamedTuple):
    """A queue of the cluster; sorts as the route does."""

    broker: str
    queue: int


def spread(members: Sequence[str], queues: Sequence[QueueId]) -> dict[str, list[QueueId]]:
    """Neighbouring queues to each member, the first members one more where it does not come out even.

    members and queues must be sorted, without repetition. Surplus members get none.
    """
    share, rest = divmod(len(queues), len(members)) if members else (0, 0)
    owned: dict[str, list[QueueId]] = {}
    start = 0
    for number, member in enumerate(members):
        end = start + share + (number < rest)
        owned[member] = list(queues[start:end])
        start = end
    return owned


class Assignments:
    def __init__(self, clients: Clients, broker: str) -> None:
        self._clients = clients
        self._broker = broker
        self.route: Callable[[Topic], Sequence[QueueId]] = self._own_queues
        """A topic's readable queues over all brokers, sorted."""

    def is_shared(self, group: Group) -> bool:
        """By the group's setting, or because a simple consumer is in it: it asks all queues alike."""
        return group.definition.assignment == record_pb2.ASSIGNMENT_SHARED or any(
            client.is_simple_consumer for client in self._clients.members(group.name)
        )

    def queues_of(self, group: Group, topic: Topic, client_id: str) -> Sequence[QueueId] | None:
        """What the client owns over all brokers; None: the group shares."""
        if self.is_shared(group):
            return None
        return spread(self._members(group, topic), self.route(topic)).get(client_id, ())

    def owners(self, group: Group, topic: Topic) -> dict[int, str] | None:
        """Who owns which of this broker's queues; None: the group shares."""
        if self.is_shared(group):
            return None
        return {
            queue.queue: member
            for member, queues in spread(self._members(group, topic), self.route(topic)).items()
            for queue in queues
            if queue.broker == self._broker
        }

    def _own_queues(self, topic: Topic) -> list[QueueId]:
        return [QueueId(self._broker, queue.id) for queue in topic.queues]

    def _members(self, group: Group, topic: Topic) -> list[str]:
        def subscribes(client: Client) -> bool:
            return client.is_push_consumer and topic.name in client.subscriptions

        return [client.id for client in self._clients.members(group.name) if subscribes(client)]
