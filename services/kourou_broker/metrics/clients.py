"""Who is connected, and who waits."""

from collections import Counter

from kourou.names import is_system_name
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.metrics.table import Labels, flag
from kourou_broker.operations.clients import Client, Clients
from kourou_broker.operations.delivery import Deliveries
from kourou_broker.operations.pull import Pulling
from kourou_broker.operations.slices import in_slices
from kourou_service.metrics.family import Family, gauge

_MAX_VERSION_CHARS = 32
_PRODUCER = ("language", "version", "protocol_type")
_CONSUMER = (*_PRODUCER, "consumer_group", "consume_mode", "is_system")
_TYPES = (
    definition_pb2.PRODUCER,
    definition_pb2.PUSH_CONSUMER,
    definition_pb2.SIMPLE_CONSUMER,
    definition_pb2.PULL_CONSUMER,
    definition_pb2.CLIENT_TYPE_UNSPECIFIED,
)


class ClientMetrics:
    def __init__(self, clients: Clients, deliveries: Deliveries, pulling: Pulling) -> None:
        self._clients = clients
        self._deliveries = deliveries
        self._pulling = pulling

    async def collect(self) -> list[Family]:
        producers: Counter[Labels] = Counter()
        consumers: Counter[Labels] = Counter()
        types: Counter[Labels] = Counter({(_type_name(type_),): 0 for type_ in _TYPES})
        async for client in in_slices(list(self._clients)):
            types[(_type_name(client.type),)] += 1
            if client.type == definition_pb2.PRODUCER:
                producers[_program(client)] += 1
            elif client.group is not None:
                consumers[(*_program(client), *_consumption(client))] += 1
        return [
            gauge("rocketmq_producer_connections", "Producers connected.", producers, _PRODUCER),
            gauge("rocketmq_consumer_connections", "Consumers connected.", consumers, _CONSUMER),
            gauge(
                "kourou_clients",
                "Clients connected; unspecified: they have not said yet what they are.",
                types,
                ["type"],
            ),
            gauge(
                "kourou_parked_polls",
                "Calls that wait for messages.",
                self._deliveries.parked_polls + self._pulling.parked_polls,
            ),
        ]


def _type_name(type_: int) -> str:
    if type_ == definition_pb2.CLIENT_TYPE_UNSPECIFIED:
        return "unspecified"
    return definition_pb2.ClientType.Name(type_).lower()


def _program(client: Client) -> Labels:
    """The values of _PRODUCER."""
    agent = client.user_agent
    known = definition_pb2.Language.DESCRIPTOR.values_by_number.get(agent.language)
    language = known.name.lower() if known is not None else str(agent.language)
    return language, agent.version[:_MAX_VERSION_CHARS], "grpc"


def _consumption(client: Client) -> Labels:
    """The other values of _CONSUMER. RocketMQ, too, says push of push consumers and pull of all others."""
    group = client.group
    assert group is not None
    mode = "push" if client.is_push_consumer else "pull"
    return str(group), mode, flag(is_system_name(group.name))
