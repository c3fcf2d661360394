"""Open transactions, and how those that ended did."""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.metrics.table import Labels
from kourou_broker.operations.traffic import Traffic
from kourou_broker.state import Resolution, State
from kourou_broker.state.definitions import Topic
from kourou_service.metrics.family import Family, counter, gauge


class TransactionMetrics:
    def __init__(self, state: State, traffic: Traffic) -> None:
        self._state = state
        self._traffic = traffic

    async def collect(self) -> list[Family]:
        half: dict[Labels, int] = {}
        ends: dict[Labels, int] = {}
        for topic in self._topics():
            half[(str(topic.name),)] = len(self._state.half_messages.by_topic.get(topic.id, ()))
            for resolution in Resolution:
                ends[str(topic.name), resolution.name.lower()] = self._traffic.transaction_ends[topic.id, resolution]
        return [
            gauge("kourou_half_messages", "Messages of open transactions, which no consumer sees.", half, ["topic"]),
            counter(
                "kourou_transaction_ends_total",
                "Transactions that were committed, rolled back, or given up by the broker since nobody ended them.",
                ends,
                ["topic", "outcome"],
            ),
        ]

    def _topics(self) -> list[Topic]:
        return [topic for topic in self._state.topics.values() if topic.type == definition_pb2.TRANSACTION]
