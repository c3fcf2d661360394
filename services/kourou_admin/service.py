"""The admin service, put together from its parts."""

from __future__ import annotations

import asyncio

import structlog

from kourou.name_servers import NameServers
from kourou.protocol.kourou.admin.v1 import admin_rpc
from kourou.transport import GrpcTransport, Transport
from kourou.wire import Wire, new_client_id
from kourou_admin.brokers import Brokers
from kourou_admin.cluster import Cluster
from kourou_admin.commands import Commands
from kourou_admin.copies import GroupCopies, TopicCopies
from kourou_admin.dead_letters import DeadLetters
from kourou_admin.draining import Draining
from kourou_admin.groups import Groups
from kourou_admin.levelling import Levelling
from kourou_admin.messages import Messages
from kourou_admin.metrics import admin_figures
from kourou_admin.progress import Progress
from kourou_admin.rpc import open_door
from kourou_admin.settings import AdminSettings
from kourou_admin.spreading import Spreading
from kourou_admin.topics import Topics
from kourou_service.clock import Clock, SystemClock
from kourou_service.engine import EngineOptions, create_engine
from kourou_service.engine.health import serve_health
from kourou_service.engine.reflection import serve_reflection
from kourou_service.following import Following
from kourou_service.listener import HostPort
from kourou_service.metrics.exposition import Node
from kourou_service.metrics.node import NodeMetrics, node_id

_logger = structlog.stdlib.get_logger(__name__)


class Admin:
    """`transport` and `clock` are the network and the time; the real ones when left out."""

    def __init__(
        self, settings: AdminSettings, *, transport: Transport | None = None, clock: Clock | None = None
    ) -> None:
        self._settings = settings
        self._own_transport = None if transport else GrpcTransport()
        wire = Wire(transport or self._own_transport or GrpcTransport(), new_client_id())
        self._name_servers = NameServers(list(settings.namesrv), wire)
        cluster = Cluster(wire, self._name_servers, timeout_s=settings.call_timeout_s)
        topics, groups = TopicCopies(cluster), GroupCopies(cluster)
        self._levelling = Levelling(cluster, (topics, groups), settings.level_interval_s)
        clock = clock or SystemClock()
        self._engine = create_engine(settings.engine, EngineOptions(max_concurrent_calls=settings.max_calls))
        open_door(
            self._engine,
            Topics(cluster, topics, clock),
            Spreading(cluster, topics, groups),
            Groups(groups, clock, cluster),
            Brokers(cluster),
            Draining(cluster, topics),
            Progress(cluster),
            Messages(cluster, clock, settings.search_timeout_s),
            Commands(cluster, settings.search_timeout_s),
            DeadLetters(cluster),
        )
        self._health = serve_health(self._engine, (admin_rpc.SERVICE,))
        serve_reflection(self._engine, (admin_rpc.SERVICE,))
        self._leveller: asyncio.Task[None] | None = None
        self._node: Node | None = None
        self._following: Following | None = None
        self.addresses: tuple[str, ...] = ()
        """Where it listens, "host:port"; known once it has started."""

    async def start(self) -> None:
        """Raises OSError when the port is taken."""
        self.addresses = (self._engine.listen(str(self._settings.listen)),)
        self._node = Node(self._settings.cluster, "admin", node_id(HostPort.parse(self.addresses[0])))
        self._following = Following(self._settings, self._node)
        self._following.install(self._engine)
        await self._engine.start()
        self._leveller = asyncio.create_task(self._levelling.run())

    def metrics(self) -> NodeMetrics:
        """What it shows of itself; after `start`."""
        assert self._node is not None
        return NodeMetrics(self._node, (self._engine,), [admin_figures(self._levelling)], self._illness)

    async def stop(self) -> None:
        if self._leveller is not None:
            self._leveller.cancel()
        self._health.close()
        await self._engine.stop(self._settings.stop_grace_s)
        await self._name_servers.close()
        if self._own_transport is not None:
            await self._own_transport.close()
        if self._following is not None:
            await self._following.close()

    def _illness(self) -> str | None:
        return None if self._health.serves(admin_rpc.SERVICE) else "it stops"
