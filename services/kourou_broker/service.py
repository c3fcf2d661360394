"""The broker put together: this is the only place that builds and wires its parts."""

import gc
import os
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.metadata import version

import structlog

from kourou.protocol.apache.rocketmq.v2 import service_rpc
from kourou.protocol.kourou.broker.v1 import broker_rpc
from kourou.protocol.kourou.stream.v1 import stream_rpc
from kourou.resolver import Resolver
from kourou.transport import GrpcTransport, Transport
from kourou_broker import upkeep
from kourou_broker.core import BrokerCore, Surroundings
from kourou_broker.forwarding import Forwarder
from kourou_broker.helper import Helper
from kourou_broker.log.file_medium import FileMedium
from kourou_broker.log.lookup import Lookup
from kourou_broker.log.worker import ThreadWorker
from kourou_broker.membership import Membership
from kourou_broker.metrics import collectors
from kourou_broker.report import BrokerReport
from kourou_broker.rpc.administering import AdministeringDoor
from kourou_broker.rpc.backing_up import BackingUpDoor
from kourou_broker.rpc.commanding import CommandingDoor
from kourou_broker.rpc.consuming import ConsumingDoor
from kourou_broker.rpc.dead_letters import DeadLetterDoor
from kourou_broker.rpc.delivered import Deliverer
from kourou_broker.rpc.ending import EndingDoor
from kourou_broker.rpc.explaining import ExplainingDoor
from kourou_broker.rpc.leaving import LeavingDoor
from kourou_broker.rpc.lite import LiteDoor
from kourou_broker.rpc.offsets import OffsetsDoor
from kourou_broker.rpc.presence import PresenceDoor
from kourou_broker.rpc.publishing import PublishingDoor
from kourou_broker.rpc.recalling import RecallingDoor
from kourou_broker.rpc.receiving import ReceivingDoor
from kourou_broker.rpc.routing import RoutingDoor
from kourou_broker.rpc.sending import SendingDoor
from kourou_broker.rpc.settling import SettlingDoor
from kourou_broker.rpc.status import BrokerStatus
from kourou_broker.rpc.stream_settling import StreamSettling
from kourou_broker.settings import BrokerSettings
from kourou_broker.state.history_search import Histories
from kourou_service.clock import Clock, SystemClock
from kourou_service.engine import Engine, create_engine
from kourou_service.engine.health import Health, serve_health
from kourou_service.engine.reflection import serve_reflection
from kourou_service.following import Following
from kourou_service.listener import Listener, ListenerNames
from kourou_service.metrics.exposition import Node
from kourou_service.metrics.family import Collect
from kourou_service.metrics.node import NodeMetrics
from kourou_service.tls.certificates import Certificates

_logger = structlog.stdlib.get_logger("kourou_broker")
_SERVICES = (service_rpc.SERVICE, stream_rpc.SERVICE, broker_rpc.SERVICE)
_UPKEEP_NICENESS = 10
"""Nobody waits for indexes and snapshots, and questions must not wait behind them: they have a process of their own."""
_UPKEEP_IDLE_S = 60.0
"""It keeps the memory that its work took."""
LOG_FAILED = 74
"""Exit code after a write or sync that failed (EX_IOERR): what is on the disk then only a restart can tell."""


class Broker:
    """Built inside the running loop; start raises LogError (the data), UserError (a certificate), OSError (an address,
    the disk)."""

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        clock: Clock | None = None,
        transport: Transport | None = None,
        new_engine: Callable[[], Engine] | None = None,
        on_stop: Callable[[], None] | None = None,
    ) -> None:
        """`on_stop` ends the process when an operator asks for that through the API; None: that is refused."""
        self._on_stop = on_stop
        self._settings = settings
        self._clock = clock or SystemClock()
        self._transport = transport or GrpcTransport()
        self._engine = (new_engine or (lambda: create_engine(settings.engine)))()
        self.listeners: tuple[Listener, ...] = settings.listeners
        """With the ports they are bound to, after `start`."""
        self.start_facts: dict[str, int] = {}
        """What is worth a line in the log about the start."""
        self._node = Node(settings.cluster, "broker", settings.name)
        self._health: Health | None = None
        self._collectors: list[Collect] = []
        self._stack = AsyncExitStack()
        """What is to be undone at the stop, in the reverse order of its coming."""

    async def start(self) -> None:
        settings = self._settings
        started_ms = self._clock.now_ms()
        stack = self._stack
        following = Following(settings, self._node)
        stack.push_async_callback(following.close)
        following.install(self._engine)
        medium = FileMedium(settings.data)
        stack.callback(medium.close)
        searcher = Helper()
        stack.callback(searcher.close)
        upkeeper = Helper(niceness=_UPKEEP_NICENESS, idle_s=_UPKEEP_IDLE_S)
        stack.callback(upkeeper.close)
        if len(medium.segments()) > 1:
            searcher.start()  # it gets ready while the log is recovered: the first question need not wait for it
        core = BrokerCore(settings, self._surroundings(medium, searcher, upkeeper))
        stack.push_async_callback(core.close)
        stack.push_async_callback(self._transport.close)
        stack.push_async_callback(self._engine.stop, settings.stop_grace_s)
        certificates = Certificates(settings, settings.listeners, settings.data / "tls")
        stack.callback(certificates.close)
        self.listeners = tuple(
            listener.bound(
                self._engine.listen(str(listener.bind), certificates.credentials(listener), name=listener.name)
            )
            for listener in settings.listeners
        )
        report = BrokerReport(
            cluster=settings.cluster,
            name=settings.name,
            broker_id=0,
            identity=medium.identity,
            started_ms=started_ms,
            version=version("kourou-server"),
            listeners=self.listeners,
            permission=core.state.broker.permission,
        )
        namesrvs = Resolver(settings.namesrv, interval_s=settings.resolve_interval_s)
        membership = Membership(core, report, settings, namesrvs, self._transport)
        self._open_doors(core, membership, started_ms)
        self._collectors = collectors(core, settings, self._clock, lambda: membership.registration.links)
        self._collectors.append(certificates.collect)
        certificates.start()
        core.start()
        _settle_memory()
        await self._engine.start()
        await membership.start()
        stack.push_async_callback(membership.stop)
        self.start_facts = {"log_end": core.log.next_position, "recovered_in_ms": self._clock.now_ms() - started_ms}

    async def stop(self) -> None:
        """Says goodbye, lets running calls end, and leaves everything on the disk. Can be repeated."""
        await self._stack.aclose()

    def metrics(self) -> NodeMetrics:
        """What it shows of itself; after `start`."""
        return NodeMetrics(self._node, (self._engine,), self._collectors, self._illness)

    def _illness(self) -> str | None:
        serves = self._health is not None and self._health.serves(service_rpc.SERVICE)
        return None if serves else "the broker is stopping"

    def _surroundings(self, medium: FileMedium, searcher: Helper, upkeeper: Helper) -> Surroundings:
        data = self._settings.data
        workers = [ThreadWorker(name) for name in ("log-commit", "log-read", "log-background")]
        for worker in workers:
            self._stack.callback(worker.close)
        return Surroundings(
            clock=self._clock,
            medium=medium,
            committer=workers[0],
            reader=workers[1],
            background=workers[2],
            lookup=Lookup(data, searcher.run),
            histories=Histories(data, searcher.run),
            fold_to=lambda position: upkeeper.run(upkeep.fold_to, data, position),
            scrub=lambda base: upkeeper.run(upkeep.scrub, data, base),
            index=lambda base: upkeeper.run(upkeep.index, data, base),
            incarnation=secrets.randbits(64),
            fatal=_stop_at_once,
        )

    def _open_doors(self, core: BrokerCore, membership: Membership, started_ms: int) -> None:
        settings, engine = self._settings, self._engine
        deliverer = Deliverer(str(self.listeners[0].advertised))
        status = BrokerStatus(
            cluster=settings.cluster,
            name=settings.name,
            id=0,
            version=version("kourou-server"),
            started_ms=started_ms,
            state=core.state,
            log=core.log,
            medium=core.medium,
            clients=core.clients,
            sending=core.sending,
            traffic=core.traffic,
        )
        presence = PresenceDoor(core.definitions, core.clients, core.commands)
        presence.open(engine)
        self._stack.callback(presence.close)
        self._stack.callback(core.end_polls)
        SendingDoor(core.sending, core.clients, core.traffic).open(engine)
        ReceivingDoor(core.definitions, core.clients, core.deliveries, core.pulling, deliverer, self._clock).open(
            engine
        )
        SettlingDoor(core.definitions, core.clients, core.deliveries, core.journal).open(engine)
        self._open_stream_door(core)
        EndingDoor(core.definitions, core.clients, core.transactions).open(engine)
        reached_by = settings.forward_listener or settings.fallback_listener
        forwarder = Forwarder(self._transport, membership.routes, reached_by, settings.name)
        RecallingDoor(core.definitions, core.clients, core.recalling, forwarder.recall, settings.name).open(engine)
        LiteDoor(core.definitions, core.clients, core.lite_subscriptions, core.journal).open(engine)
        OffsetsDoor(core.definitions, core.clients, core.offsets, core.deliveries, core.journal).open(engine)
        RoutingDoor(
            names=ListenerNames(self.listeners, settings.fallback_listener),
            routes=membership.routes,
            definitions=core.definitions,
            clients=core.clients,
            assignments=core.assignments,
        ).open(engine)
        AdministeringDoor(
            state=core.state,
            definitions=core.definitions,
            creation_times=core.creation_times,
            journal=core.journal,
            clients=core.clients,
            deliveries=core.deliveries,
            offsets=core.offsets,
            search=core.search,
            status=status,
            deliverer=deliverer,
            clock=self._clock,
        ).open(engine)
        DeadLetterDoor(core.state, core.definitions, core.journal, core.resending, deliverer).open(engine)
        CommandingDoor(core.commands, core.definitions, core.search, deliverer).open(engine)
        ExplainingDoor(core.definitions, core.explaining, status, deliverer).open(engine)
        BackingUpDoor(core.backups).open(engine)
        LeavingDoor(membership, core.state, core.journal, self._on_stop).open(engine)
        self._health = serve_health(engine, _SERVICES)
        self._stack.callback(self._health.close)
        serve_reflection(engine, _SERVICES)

    def _open_stream_door(self, core: BrokerCore) -> None:
        settings, engine = self._settings, self._engine
        PublishingDoor(core.sending, core.clients, core.traffic, window_bytes=settings.publish_window_bytes).open(
            engine
        )
        consuming = ConsumingDoor(
            core.definitions,
            core.clients,
            core.deliveries,
            StreamSettling(core.state, core.deliveries, core.journal),
            stream_grace_s=settings.client_stream_grace_s,
        )
        consuming.open(engine)
        self._stack.callback(consuming.close)


_NEW_OBJECTS = 20_000


def _settle_memory() -> None:
    """What a start leaves behind stays: Python's search for cycles of garbage need not walk through it each time.

    Of a broker with many queues that walk takes tens of milliseconds, in which no call is answered; with ten thousand
    polls that wait a hundred. So it also begins only after many more new objects than Python's default: nearly all go
    without it, and polls that end and come again in a burst must not look like garbage that gathers.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)


def _stop_at_once(problem: BaseException) -> None:
    """A write or sync of the log failed. It is never retried: the kernel may have dropped what it could not write."""
    _logger.critical("the log cannot be written: the broker stops at once", problem=str(problem))
    os._exit(LOG_FAILED)
