"""NameServers and the registering half of brokers on simulated time: the real code, without logs."""

import asyncio
import random
from collections.abc import Iterable, Sequence

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.kourou.registry.v1 import registry_pb2
from kourou.protocol.kourou.routing.v1 import routing_pb2, routing_rpc
from kourou.resolver import Resolver
from kourou.transport import RpcError
from kourou_broker.registration import Registration
from kourou_broker.report import BrokerReport
from kourou_broker.routes import Peers, Routes
from kourou_broker.state.definitions import Name
from kourou_namesrv.service import NameServer
from kourou_namesrv.settings import NamesrvSettings
from kourou_service.listener import HostPort, Listener
from tests.simulation.network import Network, Node
from tests.simulation.time import SimulatedClock

CLIENTS_PORT, BROKERS_PORT, BROKER_PORT = 8081, 9876, 10911
HEADERS = [("x-mq-client-id", "a-client")]


class SimulatedNamesrv:
    def __init__(self, network: Network, name: str) -> None:
        self.node = network.node(name)
        self.namesrv: NameServer | None = None

    async def start(self) -> None:
        await self.node.restart().start(self._start())

    async def stop(self) -> None:
        assert self.namesrv is not None
        await self.node.process.start(self.namesrv.stop())
        self.node.kill()

    async def _start(self) -> None:
        settings = NamesrvSettings(
            listeners=(Listener.parse(f"local={self.node.name}:{CLIENTS_PORT}"),),
            broker_listener=HostPort(self.node.name, BROKERS_PORT),
        )
        self.namesrv = NameServer(
            settings, clock=SimulatedClock(), transport=self.node.transport(), new_engine=self.node.engine
        )
        await self.namesrv.start()


class SimulatedBroker:
    """A broker that registers and follows routes; `identity` stands for its data folder."""

    def __init__(self, network: Network, name: str, namesrvs: Sequence[str], *, node: str = "") -> None:
        self.name = name
        self.node: Node = network.node(node or name)
        self.identity = random.Random(f"{name} on {node}").randbytes(16)
        self.refusals: list[str] = []
        self.route_changes: list[Name] = []
        self.known_brokers: frozenset[str] = frozenset()
        self._network = network
        self._namesrvs = [f"{each}:{BROKERS_PORT}" for each in namesrvs]
        self._topics: dict[str, int] = {}

    async def start(self, topics: dict[str, int]) -> None:
        """`topics`: names with numbers of queues."""
        self._topics = topics
        await self.node.restart().start(self._start())

    async def stop(self) -> None:
        await self.node.process.start(self.registration.stop())
        self.node.kill()

    def put_topic(self, name: str, queues: int) -> None:
        self.report.put_topic(
            registry_pb2.TopicState(
                topic=v2.Resource(name=name), type=v2.NORMAL, queues=queues, permission=v2.READ_WRITE, version=1
            )
        )

    async def _start(self) -> None:
        self.report = BrokerReport(
            cluster="sim",
            name=self.name,
            broker_id=0,
            identity=self.identity,
            started_ms=SimulatedClock().now_ms(),
            version="0",
            listeners=[Listener.parse(f"local={self.node.name}:{BROKER_PORT}")],
            permission=v2.READ_WRITE,
        )
        self.report.set_known_brokers(self.known_brokers)
        for name, queues in self._topics.items():
            self.put_topic(name, queues)
        transport, rng = self.node.transport(), random.Random(self.name)
        resolver = Resolver(self._namesrvs, self._network.resolve)
        self.registration = Registration(self.report, resolver, transport, self.refusals.append, rng=rng)
        self.routes = Routes(self.report, resolver, transport, self.route_changes.append, rng=rng)
        self.peers = Peers(resolver, transport, self._met, rng=rng)
        await self.registration.start()
        self.peers.start()

    def _met(self, peers: Iterable[str]) -> None:
        self.known_brokers |= frozenset(peers)  # outlives the process, as what is in the log does
        self.report.set_known_brokers(self.known_brokers)


class SimulatedClient:
    def __init__(self, network: Network, name: str = "client") -> None:
        self.node = network.node(name)
        self.transport = self.node.transport()

    async def query_route(self, namesrv: str, topic: str) -> service_pb2.QueryRouteResponse:
        request = service_pb2.QueryRouteRequest(topic=v2.Resource(name=topic))
        channel = self.transport.channel(f"{namesrv}:{CLIENTS_PORT}")
        return (await channel.unary(service_rpc.QUERY_ROUTE, request, timeout_s=3, metadata=HEADERS)).message

    async def queues(self, namesrv: str, topic: str) -> dict[str, int] | None:
        """The number of queues by broker, those that can be written to; None while the NameServer is not open."""
        try:
            response = await self.query_route(namesrv, topic)
        except RpcError:
            return None
        counts: dict[str, int] = {}
        for queue in response.message_queues:
            counts[queue.broker.name] = counts.get(queue.broker.name, 0) + (queue.permission == v2.READ_WRITE)
        return counts

    async def brokers(self, namesrv: str) -> dict[str, routing_pb2.BrokerInfo]:
        channel = self.transport.channel(f"{namesrv}:{CLIENTS_PORT}")
        reply = await channel.unary(routing_rpc.LIST_BROKERS, routing_pb2.ListBrokersRequest(), timeout_s=3)
        return {broker.name: broker for broker in reply.message.brokers}

    async def becomes(self, namesrv: str, topic: str, wanted: dict[str, int] | None, within_s: float) -> float:
        """Waits until the route is the wanted one; returns how long that took, or fails."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while (seen := await self.queues(namesrv, topic)) != wanted:
            assert loop.time() - began_s < within_s, f"after {within_s} s the route is {seen}, not {wanted}"
            await asyncio.sleep(0.1)
        return loop.time() - began_s
