"""What a NameServer counts, and the figures it shows."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from grpc import StatusCode

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_rpc
from kourou.protocol.kourou.routing.v1 import routing_rpc
from kourou_namesrv.readiness import Readiness
from kourou_namesrv.registry import Broker, Registry
from kourou_service.metrics.calls import CallMeters, Code
from kourou_service.metrics.family import Family, counter, gauge

_TURN_BROKERS = 500
# As RocketMQ writes permissions: 4 to read, 2 to write.
_PERMISSIONS = {v2.READ: 4, v2.WRITE: 2, v2.READ_WRITE: 6}
_PULLS: Mapping[str, Code] = {"ok": v2.OK, "not_found": v2.TOPIC_NOT_FOUND, "not_ready": StatusCode.UNAVAILABLE}


@dataclass
class Counts:
    """Since the start of the process."""

    accepted_registrations: int = 0
    refused_registrations: int = 0
    evictions: int = 0
    goodbyes: int = 0
    broken_streams: int = 0


class NamesrvFigures:
    def __init__(
        self,
        registry: Registry,
        readiness: Readiness,
        counts: Counts,
        meters: CallMeters,
        route_watchers: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._readiness = readiness
        self._counts = counts
        self._route_watchers = route_watchers
        self._pulls = [meters.of(method.path) for method in (service_rpc.QUERY_ROUTE, routing_rpc.WATCH_ROUTE)]

    async def collect(self) -> list[Family]:
        return [*self._of_all(), *(await self._of_each_broker()), *self._counted()]

    def _of_all(self) -> list[Family]:
        brokers = self._registry.brokers
        return [
            gauge("kourou_namesrv_ready", "Whether routes are told to clients.", int(self._readiness.open)),
            gauge("kourou_namesrv_brokers", "Brokers that are registered.", len(brokers)),
            gauge("kourou_namesrv_topics", "Topics that some broker holds.", self._registry.topics),
            gauge("kourou_namesrv_queues", "Queues on all brokers.", sum(broker.queues for broker in brokers)),
            gauge("kourou_namesrv_route_watchers", "Calls that wait for a change of a route.", self._route_watchers()),
        ]

    async def _of_each_broker(self) -> list[Family]:
        now_s = asyncio.get_running_loop().time()
        connected: dict[tuple[str], float] = {}
        permission: dict[tuple[str], float] = {}
        silent_s: dict[tuple[str], float] = {}
        heartbeats: dict[tuple[str], float] = {}
        for number, broker in enumerate(self._registry.brokers, 1):
            name = (_name(broker),)
            connected[name] = int(broker.connected)
            permission[name] = _PERMISSIONS.get(broker.permission, 0)
            silent_s[name] = max(0.0, now_s - broker.last_heard_s)
            heartbeats[name] = broker.heartbeats
            if number % _TURN_BROKERS == 0:
                await asyncio.sleep(0)
        of = ("broker",)
        return [
            gauge("kourou_namesrv_broker_connected", "Whether the broker's stream stands.", connected, of),
            gauge("kourou_namesrv_broker_permission", "4 to read + 2 to write.", permission, of),
            gauge("kourou_namesrv_broker_silent_seconds", "Time since the broker was heard of.", silent_s, of),
            counter("kourou_namesrv_heartbeats_total", "Heartbeats of the broker.", heartbeats, of),
        ]

    def _counted(self) -> list[Family]:
        counts = self._counts
        outcomes = {("accepted",): counts.accepted_registrations, ("refused",): counts.refused_registrations}
        pulls = {(result,): sum(meter.calls(code) for meter in self._pulls) for result, code in _PULLS.items()}
        return [
            counter("kourou_namesrv_registrations_total", "Registrations of brokers.", outcomes, ("outcome",)),
            counter("kourou_namesrv_evictions_total", "Brokers removed for their silence.", counts.evictions),
            counter("kourou_namesrv_goodbyes_total", "Brokers that stopped cleanly.", counts.goodbyes),
            counter(
                "kourou_namesrv_broken_streams_total", "Last streams of brokers that broke.", counts.broken_streams
            ),
            counter("kourou_namesrv_route_pulls_total", "Routes that clients asked for.", pulls, ("result",)),
        ]


def _name(broker: Broker) -> str:
    """Of a shard's leader the shard's, since others are rare."""
    return broker.key.name if broker.key.id == 0 else f"{broker.key.name}.{broker.key.id}"
