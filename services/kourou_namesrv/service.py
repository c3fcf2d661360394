"""The NameServer put together: this is the only place that builds and wires its parts."""

import asyncio
import uuid
from collections.abc import Callable, Iterable

import structlog

from kourou.protocol.apache.rocketmq.v2 import service_rpc
from kourou.protocol.kourou.registry.v1 import registry_rpc
from kourou.protocol.kourou.routing.v1 import routing_rpc
from kourou.transport import GrpcTransport, Transport
from kourou_namesrv.access_point import AccessPoint
from kourou_namesrv.forwarding import Forwarder
from kourou_namesrv.metrics import Counts, NamesrvFigures
from kourou_namesrv.readiness import Readiness
from kourou_namesrv.registration import RegistrationService
from kourou_namesrv.registry import Registry, TopicKey
from kourou_namesrv.routes import Routes
from kourou_namesrv.routing import RoutingService
from kourou_namesrv.settings import NamesrvSettings
from kourou_service.clock import Clock, SystemClock
from kourou_service.engine import Engine, create_engine
from kourou_service.engine.health import Health, serve_health
from kourou_service.engine.reflection import serve_reflection
from kourou_service.following import Following
from kourou_service.listener import Listener, ListenerNames, Way, addresses_of
from kourou_service.metrics.calls import CallMeters
from kourou_service.metrics.exposition import Node
from kourou_service.metrics.family import Collect
from kourou_service.metrics.node import NodeMetrics, node_id
from kourou_service.tls.certificates import Certificates

_logger = structlog.stdlib.get_logger("kourou_namesrv")

_SERVICES_FOR_CLIENTS = (service_rpc.SERVICE, routing_rpc.SERVICE)
_SERVICES_FOR_BROKERS = (registry_rpc.SERVICE, routing_rpc.SERVICE)


class NameServer:
    """Built inside the running loop; `start` raises OSError when an address is taken, and UserError for certificates
    that cannot be used."""

    def __init__(
        self,
        settings: NamesrvSettings,
        *,
        clock: Clock | None = None,
        transport: Transport | None = None,
        new_engine: Callable[[], Engine] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._transport = transport or GrpcTransport()
        meters = CallMeters()
        new_engine = new_engine or (lambda: create_engine(settings.engine, meters=meters))
        self._for_clients, self._for_brokers = new_engine(), new_engine()
        self.registry = Registry(settings.eviction_s)
        self.readiness = Readiness(self.registry, settings.readiness_patience_s)
        self.listeners: tuple[Listener, ...] = settings.listeners
        """The clients' listeners; with the ports they are bound to, after `start`."""
        self.broker_address = str(settings.broker_listener)
        """Where brokers register, host:port; with the port it is bound to, after `start`."""
        self._scanner: asyncio.Task[None] | None = None
        self._health: tuple[Health, ...] = ()
        self._counts = Counts()
        self._collectors: list[Collect] = []
        self._node: Node | None = None
        self._following: Following | None = None
        self._certificates: Certificates | None = None

    async def start(self) -> None:
        settings = self._settings
        certificates = self._certificates = Certificates(settings, settings.listeners, None)
        self.listeners = tuple(
            listener.bound(
                self._for_clients.listen(str(listener.bind), certificates.credentials(listener), name=listener.name)
            )
            for listener in settings.listeners
        )
        self._collectors.append(certificates.collect)
        self.broker_address = self._for_brokers.listen(str(self._settings.broker_listener))
        self._node = Node(self._settings.cluster, "nameserver", node_id(self.listeners[0].bind))
        self._following = Following(self._settings, self._node)
        self._following.install(self._for_clients, self._for_brokers)
        self._wire()
        self.readiness.start()
        self._scanner = asyncio.create_task(self._keep_scanning())
        certificates.start()
        await self._for_brokers.start()
        await self._for_clients.start()

    def metrics(self) -> NodeMetrics:
        """What it shows of itself; after `start`."""
        assert self._node is not None
        return NodeMetrics(self._node, (self._for_clients, self._for_brokers), self._collectors, self._illness)

    async def stop(self) -> None:
        """Can be repeated."""
        self.readiness.close()
        for health in self._health:
            health.close()
        if self._scanner is not None:
            self._scanner.cancel()
        if self._certificates is not None:
            self._certificates.close()
        grace_s = self._settings.stop_grace_s
        await asyncio.gather(self._for_clients.stop(grace_s), self._for_brokers.stop(grace_s))
        await self._transport.close()
        if self._following is not None:
            await self._following.close()

    def _wire(self) -> None:
        settings = self._settings
        names = ListenerNames(self.listeners, settings.fallback_listener)
        routes = Routes(self.registry, settings.fallback_listener)
        forwarder = Forwarder(
            self._transport,
            routes,
            settings.forward_listener or settings.fallback_listener,
            timeout_s=settings.forward_timeout_s,
            max_calls=settings.max_forwarded_calls,
        )
        routing = RoutingService(self.registry, routes, names, self.readiness, self._clock, settings.max_watchers)
        AccessPoint(routes, names, self.readiness, forwarder).serve_on(self._for_clients)
        RegistrationService(self.registry, uuid.uuid4().hex, settings.broken_stream_grace_s, self._counts).serve_on(
            self._for_brokers
        )
        figures = NamesrvFigures(
            self.registry, self.readiness, self._counts, self._for_clients.meters, lambda: routing.watching
        )
        self._collectors.append(figures.collect)
        routing.serve_on(self._for_clients)
        routing.serve_on(self._for_brokers)
        self._serve_health()
        serve_reflection(self._for_clients, _SERVICES_FOR_CLIENTS)
        serve_reflection(self._for_brokers, _SERVICES_FOR_BROKERS)

        def learn(_: Iterable[TopicKey]) -> None:
            names.learn(
                {
                    address: Way(name, listener.tls)
                    for broker in self.registry.brokers
                    for name, listener in broker.listeners.items()
                    for address in addresses_of(listener.endpoints)
                }
            )

        self.registry.on_change(learn)

    def _serve_health(self) -> None:
        """NOT_SERVING until routes are told; only brokers are welcome from the first moment."""
        for_clients = serve_health(self._for_clients, _SERVICES_FOR_CLIENTS, serving=False)
        for_brokers = serve_health(self._for_brokers, _SERVICES_FOR_BROKERS, serving=False)
        for_brokers.set_serving(True, registry_rpc.SERVICE)
        self._health = for_clients, for_brokers

        def open_() -> None:
            _logger.info("open for clients", brokers=len(self.registry.brokers), missing=self.readiness.missing())
            for health in self._health:
                health.set_serving(True)

        self.readiness.on_open(open_)

    def _illness(self) -> str | None:
        if self._health[0].serves(service_rpc.SERVICE):
            return None
        missing = ", ".join(self.readiness.missing()) or "a first one"
        return "it stops" if self.readiness.open else f"it has just started and waits for brokers: {missing}"

    async def _keep_scanning(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._settings.scan_interval_s)
            try:
                for broker in self.registry.scan(loop.time()):
                    self._counts.evictions += 1
                    _logger.warning("a silent broker is removed", broker=broker.key.name, id=broker.key.id)
            except Exception:
                _logger.exception("looking for silent brokers failed; it is tried again")
