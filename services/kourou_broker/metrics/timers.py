"""Delayed messages: those that wait, by topic and by time, and how punctual they are."""

from itertools import pairwise

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.metrics.table import DISK, STORAGE, Column, Labels, families
from kourou_broker.operations.firing import Firing
from kourou_broker.operations.slices import in_slices
from kourou_broker.operations.traffic import DelayTraffic, Traffic
from kourou_broker.state import State
from kourou_service.clock import Clock
from kourou_service.metrics.family import Family, counter, gauge, histogram

_BY_TOPIC = ("topic", *STORAGE)
_PERIODS_S = (0, 5, 60, 300, 900, 3600, 14_400, 28_800, 86_400)
"""The ends of those that RocketMQ counts what waits by."""

_Topic = tuple[int, DelayTraffic]
"""How many wait, and what went through it."""
_TOPICS: list[Column[_Topic]] = [
    Column(
        gauge,
        "rocketmq_timing_messages",
        "Messages whose delivery time has not come.",
        _BY_TOPIC,
        lambda topic: topic[0],
    ),
    Column(
        counter,
        "rocketmq_timer_enqueue_total",
        "Messages that were held until their delivery time.",
        _BY_TOPIC,
        lambda topic: topic[1].held.count,
    ),
    Column(
        counter,
        "rocketmq_timer_dequeue_total",
        "Messages whose delivery time came.",
        _BY_TOPIC,
        lambda topic: topic[1].fired,
    ),
    Column(
        histogram,
        "rocketmq_delay_message_latency_seconds",
        "Delays that senders asked for.",
        _BY_TOPIC,
        lambda topic: topic[1].held,
    ),
]


class TimerMetrics:
    def __init__(self, state: State, firing: Firing, traffic: Traffic, clock: Clock) -> None:
        self._state = state
        self._firing = firing
        self._traffic = traffic
        self._clock = clock

    async def collect(self) -> list[Family]:
        now_ms = self._clock.now_ms()
        due = await self._due([now_ms + period_s * 1000 for period_s in _PERIODS_S])
        return [
            *await families(_TOPICS, self._topics()),
            gauge(
                "rocketmq_timer_message_snapshot",
                "Messages whose delivery time comes in a period from now: those of shorter ones are not in it again.",
                {
                    (str(end_s), *DISK): until_end - until_start
                    for end_s, (until_start, until_end) in zip(_PERIODS_S[1:], pairwise(due), strict=True)
                },
                ["timer_bound_s", *STORAGE],
            ),
            gauge(
                "rocketmq_timer_dequeue_lag",
                "Messages whose delivery time has come and that are in no queue yet.",
                {DISK: due[0]},
                STORAGE,
            ),
            gauge(
                "rocketmq_timer_dequeue_latency_milliseconds",
                "How late the last delayed messages were, or the first one is that should be there by now.",
                {DISK: self._firing.lag_ms},
                STORAGE,
            ),
        ]

    def _topics(self) -> list[tuple[Labels, _Topic]]:
        nothing = DelayTraffic()
        return [
            (
                (str(topic.name), *DISK),
                (len(self._state.timers.get(topic.id, ())), self._traffic.delays.get(topic.id, nothing)),
            )
            for topic in self._state.topics.values()
            if topic.type == definition_pb2.DELAY
        ]

    async def _due(self, times_ms: list[int]) -> list[int]:
        """How many are due by each of these times."""
        due = [0] * len(times_ms)
        async for timers in in_slices(list(self._state.timers.values())):
            for number, until_ms in enumerate(times_ms):
                due[number] += timers.count_due(until_ms)
        return due
