"""The broker itself: what it permits and holds, and how it stands with the cluster."""

from collections.abc import Callable, Mapping, Sequence

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.metrics.table import Labels
from kourou_broker.operations.creation_times import CreationTimes, Outcomes
from kourou_broker.registration import NamesrvLink
from kourou_broker.state import State
from kourou_service.metrics.family import Family, counter, gauge, histogram

# RocketMQ's own numbers: 4 is reading, 2 is writing.
_PERMISSIONS = {
    definition_pb2.NONE: 0,
    definition_pb2.WRITE: 2,
    definition_pb2.READ: 4,
    definition_pb2.READ_WRITE: 6,
}


class NodeMetrics:
    """`links` are the ways to the NameServers."""

    def __init__(self, state: State, creation: CreationTimes, links: Callable[[], Sequence[NamesrvLink]]) -> None:
        self._state = state
        self._creation = creation
        self._links = links

    async def collect(self) -> list[Family]:
        return [*self._definitions(), *self._cluster()]

    def _definitions(self) -> list[Family]:
        state = self._state
        return [
            gauge(
                "rocketmq_broker_permission",
                "What the broker permits: 6 reading and writing, 4 reading, 2 writing, 0 nothing.",
                _PERMISSIONS[state.broker.permission],
            ),
            gauge("rocketmq_topic_number", "Topics on this broker.", len(state.topics)),
            gauge("rocketmq_lmq_number", "Lite topics on this broker, in all topics.", state.lite_topics),
            gauge("rocketmq_consumer_group_number", "Consumer groups on this broker.", len(state.groups)),
            _times(
                "rocketmq_topic_create_execution_time_milliseconds",
                "How long it took to make or change a topic.",
                ["is_system"],
                {("false",): self._creation.topics, ("true",): self._creation.system_topics},
            ),
            _times(
                "rocketmq_consumer_group_create_execution_time_milliseconds",
                "How long it took to make or change a consumer group.",
                [],
                {(): self._creation.groups},
            ),
        ]

    def _cluster(self) -> list[Family]:
        links = self._links()
        return [
            gauge(
                "kourou_namesrv_connected",
                "1 if the NameServer at the address knows this broker, else 0.",
                {(link.address,): int(link.accepted) for link in links},
                ["namesrv"],
            ),
            counter(
                "kourou_heartbeats_sent_total",
                "Heartbeats sent to the NameServer at the address.",
                {(link.address,): link.heartbeats for link in links},
                ["namesrv"],
            ),
            gauge(
                "kourou_known_broker",
                "1 for each broker of the cluster that this one has met, itself among them.",
                {(name,): 1 for name in self._state.broker.known_brokers},
                ["broker"],
            ),
        ]


def _times(name: str, documentation: str, labels: list[str], kinds: Mapping[Labels, Outcomes]) -> Family:
    times = {
        (*kind, status): times
        for kind, outcomes in kinds.items()
        for status, times in (("success", outcomes.success), ("failure", outcomes.failure))
    }
    return histogram(name, documentation, times, [*labels, "invocation_status"])
