"""What the live members of a group want of a topic, where they do not all want the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kourou.protocol.apache.rocketmq.v2.definition_pb2 import FilterExpression, Resource
from kourou.protocol.kourou.admin.v1.admin_pb2 import DifferingSubscription
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.routing.v1.routing_pb2 import BrokerInfo
from kourou_admin.cluster import Cluster
from kourou_admin.definitions import Key, key
from kourou_service.subscriptions import Wanted, wanted_by

Wants = Mapping[Key, FilterExpression]
"""By topic."""


async def clients_of(cluster: Cluster, brokers: Iterable[BrokerInfo], group: Resource) -> dict[str, Wants]:
    """By client id, what the members said; of one that several brokers know, what it said last."""
    answers = await cluster.ask_all(brokers, broker_rpc.LIST_CLIENTS, broker_pb2.ListClientsRequest())
    clients = [client for answer in answers if answer.response is not None for client in answer.response.clients]
    clients.sort(key=lambda client: client.last_seen_ms)
    return {
        client.client_id: {key(entry.topic): entry.expression for entry in client.subscriptions}
        for client in clients
        if key(client.group) == key(group) and client.subscriptions
    }


def differing_subscriptions(clients: Mapping[str, Wants]) -> list[DifferingSubscription]:
    """One entry for each topic and way to subscribe to it; none where all members agree."""
    differing: list[DifferingSubscription] = []
    for topic in sorted({topic for wants in clients.values() for topic in wants}):
        ways: dict[Wanted | None, list[str]] = {}
        for client_id, wants in sorted(clients.items()):
            ways.setdefault(wanted_by(wants[topic]) if topic in wants else None, []).append(client_id)
        if len(ways) > 1:
            differing += [_entry(topic, way, members) for way, members in ways.items()]
    return differing


def _entry(topic: Key, way: Wanted | None, members: list[str]) -> DifferingSubscription:
    namespace, name = topic
    entry = DifferingSubscription(topic=Resource(resource_namespace=namespace, name=name), client_ids=members)
    if way is not None:
        entry.expression.CopyFrom(FilterExpression(type=way.type, expression=way.expression))  # type: ignore[arg-type]
    return entry
