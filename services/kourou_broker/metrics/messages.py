"""What came in and what went out, by topic and by group."""

from collections.abc import Iterator

from kourou.names import is_system_name
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.metrics.table import (
    BY_GROUP,
    BY_GROUP_AND_KIND,
    BY_GROUP_AND_SYSTEM,
    Column,
    Labels,
    families,
    flag,
    group_labels,
)
from kourou_broker.operations.recent_sends import RecentSends
from kourou_broker.operations.traffic import GroupTraffic, TopicTraffic, Traffic
from kourou_broker.state import State
from kourou_service.clock import Clock
from kourou_service.metrics.calls import name_of
from kourou_service.metrics.family import Family, counter, gauge, histogram

_BY_TOPIC = ("topic", "message_type", "is_system")
_COUNTS_IN: list[Column[TopicTraffic]] = [
    Column(counter, "rocketmq_messages_in_total", "Messages stored.", _BY_TOPIC, lambda topic: topic.messages),
    Column(
        counter,
        "rocketmq_throughput_in_total",
        "Bytes of the messages stored.",
        _BY_TOPIC,
        lambda topic: topic.size_bytes,
    ),
]
_SIZES: list[Column[TopicTraffic]] = [
    Column(
        histogram,
        "rocketmq_message_size",
        "Sizes of the messages stored, bytes.",
        _BY_TOPIC,
        lambda topic: topic.sizes,
    )
]
_OUT: list[Column[GroupTraffic]] = [
    Column(
        counter,
        "rocketmq_messages_out_total",
        "Messages delivered.",
        BY_GROUP_AND_KIND,
        lambda group: group.delivered,
    ),
    Column(
        counter,
        "rocketmq_throughput_out_total",
        "Bytes of the messages delivered.",
        BY_GROUP_AND_KIND,
        lambda group: group.size_bytes,
    ),
    Column(
        counter,
        "rocketmq_send_to_dlq_messages_total",
        "Messages moved to the group's dead-letter topic, by the topic they came from.",
        BY_GROUP_AND_SYSTEM,
        lambda group: group.dead_letters,
    ),
    Column(
        counter,
        "kourou_acknowledged_messages_total",
        "Messages acknowledged.",
        BY_GROUP,
        lambda group: group.acknowledged,
    ),
    Column(
        counter,
        "kourou_redelivered_messages_total",
        "Messages delivered at a later attempt than the first.",
        BY_GROUP,
        lambda group: group.redelivered,
    ),
]


class MessageMetrics:
    def __init__(self, state: State, traffic: Traffic, recent_sends: RecentSends | None, clock: Clock) -> None:
        self._state = state
        self._traffic = traffic
        self._recent_sends = recent_sends
        self._clock = clock

    async def collect(self) -> list[Family]:
        refused = {(name_of(code),): count for code, count in self._traffic.refused_sends.items()}
        return [
            *await families(_COUNTS_IN, self._topics()),
            *await families(_SIZES, (row for row in self._topics() if row[1].messages)),
            *await families(_OUT, self._groups()),
            counter("kourou_refused_sends_total", "Calls of SendMessage refused, by the code.", refused, ["reason"]),
            counter(
                "kourou_duplicate_sends_total",
                "Messages sent again and not stored again: the sender was told what came of the first.",
                self._traffic.duplicate_sends,
            ),
            gauge(
                "kourou_dedup_window_seconds",
                "How old a message may be for one sent again with its id to be taken for the same.",
                0 if self._recent_sends is None else self._recent_sends.window_ms(self._clock.now_ms()) / 1000,
            ),
        ]

    def _topics(self) -> Iterator[tuple[Labels, TopicTraffic]]:
        """All of them, also where nothing came in: a rate needs a beginning."""
        nothing = TopicTraffic()
        for topic in list(self._state.topics.values()):
            type_ = definition_pb2.MessageType.Name(topic.definition.type).lower()
            labels = (str(topic.name), type_, flag(is_system_name(topic.name.name)))
            yield labels, self._traffic.topics.get(topic.id, nothing)

    def _groups(self) -> Iterator[tuple[Labels, GroupTraffic]]:
        """What a group asked for since the broker's start."""
        for key in list(self._traffic.groups):
            traffic = self._traffic.groups.get(key)
            group, topic = self._state.groups_by_id.get(key[0]), self._state.topics_by_id.get(key[1])
            if traffic is not None and group is not None and topic is not None:  # not deleted meanwhile
                yield group_labels(group, topic), traffic
