"""A network in memory: the clients' `Transport` on one side, the services' `Engine` on the other, and in between
latency from a seed, cuts that hold what was sent until they heal or break the calls, and processes that vanish.

Hosts are the names of nodes: a NameServer on the node "namesrv-1" listens on "namesrv-1:8081". Messages go through
their bytes, as they do outside.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from tests.simulation.client_side import SimulatedTransport
from tests.simulation.server_side import SimulatedEngine
from tests.simulation.wire import Machine, NetworkOptions, Wire


class Network(Wire):
    def __init__(self, seed: int = 0, options: NetworkOptions | None = None) -> None:
        super().__init__(seed, options or NetworkOptions())
        self._nodes: dict[str, Node] = {}
        self.names: dict[str, list[str]] = {}
        """What name resolution answers: a name to the hosts behind it. The name of a node leads to itself."""

    def node(self, name: str) -> "Node":
        """The node of this name; made, with a first process, when it is asked for the first time."""
        if name not in self._nodes:
            self._nodes[name] = Node(self, name)
        return self._nodes[name]

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Stands in for getaddrinfo. Raises OSError for a name that nobody has."""
        await asyncio.sleep(self.latency_s())
        hosts = self.names.get(host, [host] if host in self._nodes else [])
        if not hosts:
            raise OSError(f"no address for {host}")
        return [f"{each}:{port}" for each in hosts]

    def isolate(self, name: str) -> None:
        for other in self._nodes:
            if other != name:
                self.cut(name, other)


class Node(Machine):
    """One host of the simulated cluster, with what its process needs of the network."""

    wire: Network

    def transport(self) -> SimulatedTransport:
        return SimulatedTransport(self, self.wire.node)

    def engine(self) -> SimulatedEngine:
        return SimulatedEngine(self)


def resolve_within(network: Network) -> None:
    """Hosts are the names of machines: the network resolves them, not the system."""
    loop = asyncio.get_running_loop()

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        found = await network.resolve(host, port)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", tuple(each.rsplit(":", 1))) for each in found]

    loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign]
