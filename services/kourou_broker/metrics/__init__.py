"""The broker's figures for Prometheus: read, when somebody asks, from plain numbers that are counted elsewhere."""

from collections.abc import Callable, Sequence

from kourou_broker.core import BrokerCore
from kourou_broker.metrics.clients import ClientMetrics
from kourou_broker.metrics.consumers import ConsumerMetrics
from kourou_broker.metrics.messages import MessageMetrics
from kourou_broker.metrics.node import NodeMetrics
from kourou_broker.metrics.storage import StorageMetrics
from kourou_broker.metrics.timers import TimerMetrics
from kourou_broker.metrics.transactions import TransactionMetrics
from kourou_broker.registration import NamesrvLink
from kourou_broker.settings import BrokerSettings
from kourou_service.clock import Clock
from kourou_service.metrics.family import Collect


def collectors(
    core: BrokerCore, settings: BrokerSettings, clock: Clock, links: Callable[[], Sequence[NamesrvLink]]
) -> list[Collect]:
    """`links` gives the ways to the NameServers."""
    storage = StorageMetrics(
        log=core.log,
        journal=core.journal,
        snapshots=core.snapshots,
        scrubbing=core.scrubbing,
        clock=clock,
        watermark_bytes=settings.disk_watermark_bytes,
        recovery_ms=core.recovery_ms,
    )
    return [
        TimerMetrics(core.state, core.firing, core.traffic, clock).collect,
        TransactionMetrics(core.state, core.traffic).collect,
        MessageMetrics(core.state, core.traffic, core.recent_sends, clock).collect,
        ConsumerMetrics(core.backlogs, core.clients.differing, clock).collect,
        storage.collect,
        ClientMetrics(core.clients, core.deliveries, core.pulling).collect,
        NodeMetrics(core.state, core.creation_times, links).collect,
    ]
