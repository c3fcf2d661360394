"""What this broker learns from the NameServers: the whole route of topics that have consumers here, and its peers.

What is known stays known while no NameServer answers; of a topic that was never known there are the own queues.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import structlog

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.google.protobuf import duration_pb2
from kourou.protocol.kourou.routing.v1 import routing_pb2, routing_rpc
from kourou.resolver import NamesrvList, Resolver
from kourou.transport import RpcError, Transport
from kourou_broker.report import BrokerReport
from kourou_broker.state.definitions import Name
from kourou_service.logs import apart_from_calls

_logger = structlog.stdlib.get_logger("kourou_broker")

WATCH_S = 30.0
CALL_TIMEOUT_S = 3.0
RETRY_S = 1.0
# Brokers that start together meet soon.
FIRST_PEERS_INTERVAL_S = 1.0
PEERS_INTERVAL_S = 30.0


class Route(NamedTuple):
    version: int
    queues: tuple[v2.MessageQueue, ...]


class Routes:
    """Follows the routes of some topics by long polls."""

    def __init__(
        self,
        report: BrokerReport,
        namesrvs: Resolver,
        transport: Transport,
        on_change: Callable[[Name], None],
        *,
        rng: random.Random | None = None,
    ) -> None:
        """`on_change` is told when a topic's route has changed, for any listener."""
        self._report = report
        self._namesrvs = namesrvs
        self._transport = transport
        self._on_change = on_change
        self._list = NamesrvList(rng)
        self._routes: dict[tuple[Name, str], Route] = {}
        self._watches: dict[tuple[Name, str], asyncio.Task[None]] = {}
        self._topics: frozenset[Name] = frozenset()
        self._listeners: set[str] = set()

    def follow(self, topics: Iterable[Name], listeners: Iterable[str]) -> None:
        """Follows these topics and no others, as seen by those who come by these listeners of the broker, and by any
        other by which somebody asked."""
        before, self._topics = self._topics, frozenset(topics)
        for key in product(before - self._topics, self._listeners):
            self._watches.pop(key).cancel()
            self._routes.pop(key, None)
        self._start_watching(self._topics - before, self._listeners)
        for listener in listeners:
            self._follow_by(listener)

    def _follow_by(self, listener: str) -> None:
        if listener not in self._listeners:
            self._listeners.add(listener)
            self._start_watching(self._topics, [listener])

    def _start_watching(self, topics: Iterable[Name], listeners: Iterable[str]) -> None:
        loop = asyncio.get_running_loop()
        for key in sorted(product(topics, listeners)):
            self._watches[key] = loop.create_task(self._watch(*key), context=apart_from_calls())

    def queues(self, topic: Name, listener: str) -> Sequence[v2.MessageQueue]:
        """The topic's queues on all brokers, in the order all brokers agree on."""
        route = self._routes.get((topic, listener))
        return route.queues if route is not None else self._report.queues(topic, listener)

    async def ask(self, topic: Name, listener: str) -> Sequence[v2.MessageQueue]:
        """The same, for a topic that need not be followed: asks a NameServer if nothing is known."""
        self._follow_by(listener)
        if (topic, listener) not in self._routes and (address := await self._namesrv()) is not None:
            request = routing_pb2.WatchRouteRequest(topic=topic.resource(), endpoints=self._report.endpoints(listener))
            try:
                reply = await self._transport.channel(address).unary(
                    routing_rpc.WATCH_ROUTE, request, timeout_s=CALL_TIMEOUT_S
                )
            except RpcError:
                self._list.failed(address)
            else:
                if reply.message.status.code == v2.OK:
                    return reply.message.message_queues
        return self.queues(topic, listener)

    def close(self) -> None:
        for task in self._watches.values():
            task.cancel()
        self._watches.clear()

    async def _watch(self, topic: Name, listener: str) -> None:
        while True:
            known = self._routes.get((topic, listener))
            address = await self._namesrv()
            if address is None:
                await asyncio.sleep(RETRY_S)
                continue
            request = routing_pb2.WatchRouteRequest(
                topic=topic.resource(),
                endpoints=self._report.endpoints(listener),
                known_version=known.version if known is not None else 0,
                max_wait=duration_pb2.Duration(seconds=int(WATCH_S)),
            )
            try:
                reply = await self._transport.channel(address).unary(
                    routing_rpc.WATCH_ROUTE, request, timeout_s=WATCH_S + CALL_TIMEOUT_S
                )
            except RpcError as error:
                _logger.debug("no route", topic=str(topic), address=address, reason=str(error))
                self._list.failed(address)
                await asyncio.sleep(RETRY_S)
                continue
            if not self._took(topic, listener, reply.message):
                await asyncio.sleep(RETRY_S)

    def _took(self, topic: Name, listener: str, answer: routing_pb2.WatchRouteResponse) -> bool:
        """False: the answer says nothing; a NameServer that knows no such topic may not have heard of it yet."""
        if answer.status.code != v2.OK:
            return False
        known = self._routes.get((topic, listener))
        if known is None or known.version != answer.version:
            self._routes[topic, listener] = Route(answer.version, tuple(answer.message_queues))
            self._on_change(topic)
        return True

    async def _namesrv(self) -> str | None:
        await self._namesrvs.addresses()
        self._list.update(self._namesrvs.by_target)
        return self._list.current


class Peers:
    """Learns the names of the cluster's brokers, so that they can be kept and told to a NameServer that starts."""

    def __init__(
        self,
        namesrvs: Resolver,
        transport: Transport,
        on_peers: Callable[[Mapping[str, v2.Permission]], None],
        *,
        rng: random.Random | None = None,
    ) -> None:
        """`on_peers` is told all brokers that are registered, and what they permit; who is missing may only be away."""
        self._namesrvs = namesrvs
        self._transport = transport
        self._on_peers = on_peers
        self._list = NamesrvList(rng)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep_asking())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _keep_asking(self) -> None:
        interval_s = FIRST_PEERS_INTERVAL_S
        while True:
            await self._namesrvs.addresses()
            self._list.update(self._namesrvs.by_target)
            address = self._list.current
            if address is not None:
                try:
                    reply = await self._transport.channel(address).unary(
                        routing_rpc.LIST_BROKERS, routing_pb2.ListBrokersRequest(), timeout_s=CALL_TIMEOUT_S
                    )
                    self._on_peers({broker.name: broker.permission for broker in reply.message.brokers})
                except RpcError:
                    self._list.failed(address)
            await asyncio.sleep(interval_s)
            interval_s = min(interval_s * 2, PEERS_INTERVAL_S)
