"""What producers and consumers are made of: a wire, NameServers, routes and a session with the brokers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TypedDict

from kourou.doors import Door, Doors
from kourou.errors import ClosedError, InvalidArgument, KourouError
from kourou.name_servers import NameServers
from kourou.names import group_fault, namespace_fault
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.routes import PULL_INTERVAL_S, Routes
from kourou.session import Session
from kourou.tls import Tls, credentials_of
from kourou.transport import GrpcTransport, Transport
from kourou.wire import Wire, new_client_id

NAMESRV_VARIABLE = "KOUROU_NAMESRV"
DEFAULT_NAMESRV = "127.0.0.1:8081"


class ClientOptions(TypedDict, total=False):
    """Keyword arguments that all producers and consumers take."""

    client_id: str
    """Unique to this client; made up when left out."""
    namespace: str
    """Of all topics and groups that it names; the default one when left out."""
    watch_routes: bool
    """Learn of changed routes at once by a long poll, not by asking every 30 s."""
    route_interval_s: float
    """How often routes are pulled."""
    double_shuffle: bool
    """Choose among the NameServers as ZooKeeper's clients do: shuffle the names, then the addresses of each."""
    tls: Tls
    """Whether NameServers and brokers are reached over TLS: True, False or a file with the CAs to believe. When left
    out: KOUROU_TLS, which is one of them, else plaintext."""
    door: Door
    """By which messages go to and from brokers: "stream", which is kourou.stream.v1 and left out means, or "rocketmq",
    which is apache.rocketmq.v2. A broker that does not know the first is spoken to by the second."""
    transport: Transport
    """The network; real gRPC when left out. It is not closed with the client."""


class Client:
    """Built without a running loop; everything starts with the first use."""

    def __init__(
        self,
        namesrv: str | Sequence[str] | None,
        own_settings: Callable[[], v2.Settings],
        *,
        group: str | None,
        options: ClientOptions,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.namespace = options.get("namespace", "")
        fault = namespace_fault(self.namespace) or (group_fault(group) if group is not None else None)
        if fault:
            raise InvalidArgument(fault)
        if "transport" in options and "tls" in options:
            raise InvalidArgument("tls has no effect on a transport of your own: give one of them")
        credentials = None if "transport" in options else credentials_of(options.get("tls"))
        self._own_transport = None if "transport" in options else GrpcTransport(credentials)
        transport = options.get("transport") or self._own_transport
        assert transport is not None
        self.wire = Wire(transport, options.get("client_id") or new_client_id(), headers, self.namespace)
        self.name_servers = NameServers(
            name_server_targets(namesrv),
            self.wire,
            tls=credentials is not None,
            double_shuffle=options.get("double_shuffle", False),
        )
        self.routes = Routes(
            self.name_servers,
            self._route_changed,
            watch=options.get("watch_routes", False),
            pull_interval_s=options.get("route_interval_s", PULL_INTERVAL_S),
        )
        self.session = Session(self.wire, own_settings, group)
        self.doors = Doors(options.get("door", "stream"))
        self._closed = False

    def check_open(self) -> None:
        if self._closed:
            raise ClosedError("the client was closed")

    @contextmanager
    def in_use(self) -> Generator[None, None, None]:
        """Around what a user asked for. Raises ClosedError when the client is closed, before or meanwhile."""
        self.check_open()
        try:
            yield
        except (asyncio.CancelledError, KourouError):
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):
                raise ClosedError("the client was closed meanwhile") from None
            raise

    def _route_changed(self) -> None:
        # A pull that ends late must not bring back a client that has said goodbye.
        if not self._closed:
            self.session.follow(self.routes.addresses)

    async def close(self) -> None:
        """Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self.routes.close()
        await self.session.close()
        await self.name_servers.close()
        if self._own_transport is not None:
            await self._own_transport.close()


def name_server_targets(namesrv: str | Sequence[str] | None) -> list[str]:
    """One or several "host:port", also separated by ; or ,; None: from the environment, else the local cluster."""
    if namesrv is None:
        namesrv = os.environ.get(NAMESRV_VARIABLE) or DEFAULT_NAMESRV
    if isinstance(namesrv, str):
        namesrv = namesrv.replace(";", ",").split(",")
    targets = [target.strip() for target in namesrv if target.strip()]
    if not targets:
        raise InvalidArgument("no NameServer is given")
    return targets
