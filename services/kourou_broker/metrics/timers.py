"""Delayed messages, and how punctual they are."""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.metrics.table import Labels
from kourou_broker.operations.firing import Firing
from kourou_broker.state import State
from kourou_service.metrics.family import Family, gauge


class TimerMetrics:
    def __init__(self, state: State, firing: Firing) -> None:
        self._state = state
        self._firing = firing

    async def collect(self) -> list[Family]:
        delayed: dict[Labels, int] = {
            (str(topic.name),): len(self._state.timers.get(topic.id, ()))
            for topic in self._state.topics.values()
            if topic.type == definition_pb2.DELAY
        }
        return [
            gauge("kourou_delayed_messages", "Messages whose delivery time has not come.", delayed, ["topic"]),
            gauge(
                "kourou_timer_lag_seconds",
                "How late the last delayed messages were, or the first one is that should be there by now.",
                self._firing.lag_ms / 1000,
            ),
        ]
