"""Open transactions, and how those that ended did."""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.metrics.table import Column, Labels, families
from kourou_broker.operations.traffic import Traffic, TransactionTraffic
from kourou_broker.state import State
from kourou_service.metrics.family import Family, counter, gauge, histogram

_BY_TOPIC = ("topic",)

_Topic = tuple[int, TransactionTraffic]
"""How many are open, and how others ended."""
_TOPICS: list[Column[_Topic]] = [
    Column(
        gauge,
        "rocketmq_half_messages",
        "Messages of open transactions, which no consumer sees.",
        _BY_TOPIC,
        lambda topic: topic[0],
    ),
    Column(
        counter,
        "rocketmq_commit_messages_total",
        "Transactions that their producers committed.",
        _BY_TOPIC,
        lambda topic: topic[1].committed.count,
    ),
    Column(
        counter,
        "rocketmq_rollback_messages_total",
        "Transactions that their producers rolled back.",
        _BY_TOPIC,
        lambda topic: topic[1].rolled_back,
    ),
    Column(
        counter,
        "kourou_transactions_given_up_total",
        "Transactions that the broker rolled back, since nobody ended them.",
        _BY_TOPIC,
        lambda topic: topic[1].given_up,
    ),
    Column(
        histogram,
        "rocketmq_finish_message_latency_milliseconds",
        "How long committed transactions were open: in seconds, as RocketMQ counts it under this name.",
        _BY_TOPIC,
        lambda topic: topic[1].committed,
    ),
]


class TransactionMetrics:
    def __init__(self, state: State, traffic: Traffic) -> None:
        self._state = state
        self._traffic = traffic

    async def collect(self) -> list[Family]:
        return await families(_TOPICS, self._topics())

    def _topics(self) -> list[tuple[Labels, _Topic]]:
        half, nothing = self._state.half_messages.by_topic, TransactionTraffic()
        return [
            ((str(topic.name),), (len(half.get(topic.id, ())), self._traffic.transactions.get(topic.id, nothing)))
            for topic in self._state.topics.values()
            if topic.type == definition_pb2.TRANSACTION
        ]
