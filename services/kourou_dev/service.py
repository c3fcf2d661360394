"""All three services in one process and on one loop: the same code on the same ports as in processes of their own."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from kourou.errors import KourouError
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Endpoints
from kourou.protocol.kourou.routing.v1 import routing_rpc
from kourou.protocol.kourou.routing.v1.routing_pb2 import ListBrokersRequest
from kourou.transport import GrpcTransport
from kourou.wire import Wire, new_client_id
from kourou_admin.service import Admin
from kourou_admin.settings import AdminSettings
from kourou_broker.log.errors import LogError
from kourou_broker.service import Broker
from kourou_broker.settings import BrokerSettings
from kourou_dev.settings import DevSettings
from kourou_namesrv.service import NameServer
from kourou_namesrv.settings import NamesrvSettings
from kourou_service.listener import TLS_PREFIX, HostPort, Listener
from kourou_service.metrics.node import NodeMetrics
from kourou_service.metrics.server import serving_metrics
from kourou_service.process import UserError
from kourou_service.tls.self_made import CERTIFICATE

_HOST = "127.0.0.1"
_BROKER = "broker-a"
_READY_TIMEOUT_S = 60.0
_SHARED = {"engine", "stop_grace_s", "log_level", "otlp_endpoint", "trace_ratio"}
"""Settings that all three services take from this one."""
_TLS = {"tls_certificate", "tls_key", "tls_client_ca"}


class LocalCluster:
    def __init__(self, settings: DevSettings) -> None:
        self._settings = settings
        self._shared = settings.model_dump(include=_SHARED)
        # One CA for both services, so that clients have one to believe.
        tls_folder = settings.tls_folder or settings.data / "tls"
        self._with_tls = {**self._shared, **settings.model_dump(include=_TLS), "tls_folder": tls_folder}
        self.ca = None if settings.tls_certificate is not None else tls_folder / CERTIFICATE
        """The CA of the self-made certificate; None: the certificate is the user's."""
        self._started = AsyncExitStack()
        self.access_point = self.tls_access_point = self.broker = self.admin = self.metrics = ""
        """Where clients connect, where the broker, the admin service and the metrics are; known after `start`."""

    async def start(self) -> None:
        """Returns when messages can be sent. Raises OSError or UserError when it cannot run; then nothing is left."""
        try:
            name_server = await self._start_name_server()
            broker = await self._start_broker(name_server)
            admin = await self._start_admin()
            await self._serve_metrics([name_server.metrics(), broker.metrics(), admin.metrics()])
            await self._ready()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """The admin service first, the NameServer last: the broker says goodbye to it."""
        await self._started.aclose()

    async def _start_name_server(self) -> NameServer:
        name_server = NameServer(
            NamesrvSettings.model_validate(
                {
                    "listeners": _listeners(self._settings.port, self._settings.tls_port),
                    "broker_listener": HostPort(_HOST, self._settings.registration_port),
                    **self._with_tls,
                }
            )
        )
        self._started.push_async_callback(name_server.stop)
        await name_server.start()
        self.access_point, self.tls_access_point = (str(listener.bind) for listener in name_server.listeners)
        return name_server

    async def _start_broker(self, name_server: NameServer) -> Broker:
        broker = Broker(
            BrokerSettings.model_validate(
                {
                    "name": _BROKER,
                    "data": self._settings.data / _BROKER,
                    "listeners": _listeners(self._settings.broker_port, self._settings.broker_tls_port),
                    "namesrv": (name_server.broker_address,),
                    "auto_create_groups": True,
                    **self._with_tls,
                }
            )
        )
        self._started.push_async_callback(broker.stop)
        try:
            await broker.start()
        except LogError as problem:
            raise UserError(str(problem)) from problem
        self.broker = str(broker.listeners[0].bind)
        return broker

    async def _start_admin(self) -> Admin:
        admin = Admin(
            AdminSettings.model_validate(
                {
                    "listen": HostPort(_HOST, self._settings.admin_port),
                    "namesrv": (self.access_point,),
                    **self._shared,
                }
            )
        )
        self._started.push_async_callback(admin.stop)
        await admin.start()
        self.admin = admin.addresses[0]
        return admin

    async def _serve_metrics(self, services: Sequence[NodeMetrics]) -> None:
        address = HostPort(_HOST, self._settings.metrics_port)
        serving = serving_metrics(services, address, self._settings.metrics_max_series)
        self.metrics = str(await self._started.enter_async_context(serving))

    async def _ready(self) -> None:
        """The access point answers once the broker has registered."""
        transport = GrpcTransport()
        wire = Wire(transport, new_client_id())
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                while not await self._registered(wire):  # noqa: ASYNC110  (it happens behind the network)
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise UserError(f"the broker did not register within {_READY_TIMEOUT_S:.0f} s") from None
        finally:
            await transport.close()

    async def _registered(self, wire: Wire) -> bool:
        try:
            request = ListBrokersRequest(endpoints=Endpoints())
            return bool((await wire.call(self.access_point, routing_rpc.LIST_BROKERS, request)).message.brokers)
        except KourouError:
            return False


def _listeners(port: int, tls_port: int) -> tuple[Listener, Listener]:
    return Listener.parse(f"{_HOST}:{port}"), Listener.parse(f"{TLS_PREFIX}{_HOST}:{tls_port}")
