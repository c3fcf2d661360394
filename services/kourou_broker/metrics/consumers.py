"""How far the groups are behind."""

from kourou_broker.metrics.table import BY_GROUP, BY_GROUP_AND_KIND, Column, families, group_labels
from kourou_broker.operations.backlog import Backlog, Backlogs
from kourou_broker.operations.differing_subscriptions import DifferingSubscriptions
from kourou_service.clock import Clock
from kourou_service.metrics.family import Family, gauge


class ConsumerMetrics:
    def __init__(self, backlogs: Backlogs, differing: DifferingSubscriptions, clock: Clock) -> None:
        self._backlogs = backlogs
        self._differing = differing
        self._clock = clock

    async def collect(self) -> list[Family]:
        backlogs = await self._backlogs.measure()
        rows = ((group_labels(backlog.group, backlog.topic), backlog) for backlog in backlogs)
        return [
            *await families(self._columns(), rows),
            gauge(
                "kourou_queues_at_pending_limit",
                "Queues with so much unacknowledged that a group gets nothing new from them.",
                sum(backlog.full_queues for backlog in backlogs),
            ),
            gauge(
                "kourou_group_differing_subscriptions",
                "Topics of which not all live members of the group want the same messages.",
                {(str(group),): len(topics) for group, topics in self._differing},
                ["consumer_group"],
            ),
        ]

    def _columns(self) -> list[Column[Backlog]]:
        now_ms = self._clock.now_ms()

        def age_ms(stored_ms: int | None) -> int:
            return 0 if stored_ms is None else max(0, now_ms - stored_ms)

        return [
            Column(
                gauge,
                "rocketmq_consumer_lag_messages",
                "Messages that the group has not settled.",
                BY_GROUP_AND_KIND,
                lambda backlog: backlog.lag,
            ),
            Column(
                gauge,
                "rocketmq_consumer_ready_messages",
                "How many of these can be received now.",
                BY_GROUP_AND_KIND,
                lambda backlog: backlog.lag - backlog.inflight - backlog.held_back,
            ),
            Column(
                gauge,
                "rocketmq_consumer_inflight_messages",
                "How many of these consumers have received and not acknowledged yet.",
                BY_GROUP_AND_KIND,
                lambda backlog: backlog.inflight,
            ),
            Column(
                gauge,
                "rocketmq_consumer_lag_latency_milliseconds",
                "Age of the oldest message that the group has not settled; 0 if there is none.",
                BY_GROUP_AND_KIND,
                lambda backlog: age_ms(backlog.oldest_ms),
            ),
            Column(
                gauge,
                "rocketmq_consumer_queueing_latency_milliseconds",
                "Age of the oldest message that can be received now; 0 if there is none.",
                BY_GROUP_AND_KIND,
                lambda backlog: age_ms(backlog.oldest_ready_ms),
            ),
            Column(
                gauge,
                "kourou_oldest_waiting_message_seconds",
                "Age of the oldest message that the group has not settled; 0 if there is none.",
                BY_GROUP,
                lambda backlog: age_ms(backlog.oldest_ms) / 1000,
            ),
        ]
