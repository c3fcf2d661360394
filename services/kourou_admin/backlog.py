"""What a broker still holds for consumers: by topic and group, with how many are there to consume it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from kourou.protocol.apache.rocketmq.v2.definition_pb2 import ClientType, Resource
from kourou.protocol.kourou.admin.v1.admin_pb2 import DrainBacklog
from kourou.protocol.kourou.broker.v1.broker_pb2 import (
    Client,
    DescribeBrokerRequest,
    DescribeQueuesRequest,
    HeldMessages,
    ListClientsRequest,
    Progress,
    Queue,
)
from kourou.protocol.kourou.broker.v1.broker_rpc import DESCRIBE_BROKER, DESCRIBE_QUEUES, LIST_CLIENTS
from kourou.protocol.kourou.routing.v1.routing_pb2 import BrokerInfo
from kourou.protocol.method import UnaryMethod
from kourou_admin.cluster import A, Cluster, Q
from kourou_admin.definitions import Key, key
from kourou_service.refusal import Refused

_CONSUMERS = frozenset((ClientType.PUSH_CONSUMER, ClientType.SIMPLE_CONSUMER))


async def read_backlog(cluster: Cluster, leaders: Mapping[str, BrokerInfo], broker: str) -> list[DrainBacklog]:
    """Ordered by topic and group, then what is held; empty when all is consumed.

    Raises Refused when a broker does not answer. All are asked: a group that reads a topic elsewhere will come for it
    here, too.
    """
    queues = await _ask(cluster, leaders, DESCRIBE_QUEUES, DescribeQueuesRequest())
    clients = await _ask(cluster, leaders, LIST_CLIENTS, ListClientsRequest())
    members = _members(client for response in clients.values() for client in response.clients)
    readers = defaultdict(set, {topic: set(groups) for topic, groups in members.items()})
    for response in queues.values():
        for queue in response.queues:
            readers[key(queue.topic)].update(key(progress.group) for progress in queue.progress)
    by_topic: dict[Key, list[Queue]] = defaultdict(list)
    for queue in queues[broker].queues:
        by_topic[key(queue.topic)].append(queue)
    described = await _ask(cluster, {broker: leaders[broker]}, DESCRIBE_BROKER, DescribeBrokerRequest())
    return [
        *(
            entry
            for topic, held in sorted(by_topic.items())
            for entry in _of_topic(held, sorted(readers[topic]), members[topic])
        ),
        *(_held(each) for each in described[broker].held_messages),
    ]


def _held(here: HeldMessages) -> DrainBacklog:
    """What no consumer can see yet."""
    return DrainBacklog(topic=here.topic, messages=here.delayed + here.half, delayed=here.delayed, half=here.half)


def _members(clients: Iterable[Client]) -> dict[Key, Counter[Key]]:
    """By topic, how many live members of each group subscribe to it.

    A client is connected to several brokers and counts once. A member that reads other topics only will not come.
    """
    consumers = (client for client in clients if client.type in _CONSUMERS and client.HasField("group"))
    subscribed = {
        (key(entry.topic), key(each.group), each.client_id) for each in consumers for entry in each.subscriptions
    }
    members: dict[Key, Counter[Key]] = defaultdict(Counter)
    for topic, group, _ in subscribed:
        members[topic][group] += 1
    return members


def _of_topic(queues: Sequence[Queue], readers: Iterable[Key], members: Counter[Key]) -> Iterable[DrainBacklog]:
    stored = sum(queue.next_offset - queue.first_offset for queue in queues)
    topic = queues[0].topic
    progress: dict[Key, list[Progress]] = defaultdict(list)
    for queue in queues:
        for each in queue.progress:
            progress[key(each.group)].append(each)
    for group in readers:
        here = progress[group]
        left = sum(each.lag for each in here) if here else stored  # who never came here has everything before him
        if left:
            yield DrainBacklog(
                topic=topic,
                group=Resource(resource_namespace=group[0], name=group[1]),
                messages=left,
                inflight=sum(each.inflight for each in here),
                members=members[group],
            )
    if stored and not readers:
        yield DrainBacklog(topic=topic, messages=stored)


async def _ask(
    cluster: Cluster, leaders: Mapping[str, BrokerInfo], method: UnaryMethod[Q, A], request: Q
) -> dict[str, A]:
    responses: dict[str, A] = {}
    for answer in await cluster.ask_all(leaders.values(), method, request):
        if answer.response is None:
            raise Refused(answer.status.code, f"broker {answer.broker} does not answer: {answer.status.message}")
        responses[answer.broker] = answer.response
    return responses
