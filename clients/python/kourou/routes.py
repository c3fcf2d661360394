"""The routes of the topics that a client uses, kept fresh: pulled every 30 s and at once after an error, or watched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from kourou.backoff import Exponential
from kourou.errors import KourouError, NotFound, Unsupported
from kourou.name_servers import NameServers
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.kourou.routing.v1 import routing_pb2, routing_rpc
from kourou.route import Route

_log = logging.getLogger(__name__)

PULL_INTERVAL_S = 30.0
WATCH_WAIT_S = 30.0
_MIN_PULL_GAP_S = 0.1
"""Errors come in swarms; they share a pull."""
_WATCH_AGAIN = Exponential(initial_s=0.2, max_s=5.0)


class Routes:
    def __init__(
        self,
        name_servers: NameServers,
        on_change: Callable[[], None],
        *,
        watch: bool = False,
        pull_interval_s: float = PULL_INTERVAL_S,
    ) -> None:
        self._name_servers = name_servers
        self._on_change = on_change
        self._watch = watch
        self._pull_interval_s = pull_interval_s
        self._known: dict[str, Route] = {}
        self._pulls: dict[str, asyncio.Task[Route]] = {}
        self._pulled_at_s: dict[str, float] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}

    @property
    def addresses(self) -> frozenset[str]:
        """All brokers of all topics in use."""
        return frozenset[str]().union(*(route.addresses for route in self._known.values()))

    def broker_at(self, address: str) -> str:
        """The name of the broker there; empty when no route has it any more."""
        return next((name for route in self._known.values() if (name := route.broker_at(address))), "")

    def known(self, topic: str) -> Route | None:
        """The route, if it was ever told."""
        return self._known.get(topic)

    async def get(self, topic: str) -> Route:
        """The route as it is known, else pulled. Raises TopicNotFound, ConnectionFailed."""
        route = self._known.get(topic)
        return route if route is not None else await self.pull(topic)

    async def pull(self, topic: str) -> Route:
        """The route as a NameServer has it now; those who ask at the same time share one call."""
        return await asyncio.shield(self._pulls.get(topic) or self._start_pull(topic))

    def pull_soon(self, topic: str) -> None:
        """After an error: in the background, unless it was just done."""
        now_s = asyncio.get_running_loop().time()
        if topic not in self._pulls and now_s - self._pulled_at_s.get(topic, -1e9) > _MIN_PULL_GAP_S:
            self._start_pull(topic)

    def forget(self, topic: str) -> None:
        """The topic is not used any more."""
        keeper = self._keepers.pop(topic, None)
        if keeper is not None:
            keeper.cancel()
        if self._known.pop(topic, None) is not None:
            self._on_change()

    async def close(self) -> None:
        tasks: list[asyncio.Task[Any]] = [*self._keepers.values(), *self._pulls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start_pull(self, topic: str) -> asyncio.Task[Route]:
        pull = self._pulls[topic] = asyncio.create_task(self._pull(topic))
        pull.add_done_callback(lambda done: self._pulled(topic, done))
        return pull

    async def _pull(self, topic: str) -> Route:
        def request(endpoints: v2.Endpoints) -> service_pb2.QueryRouteRequest:
            return service_pb2.QueryRouteRequest(topic=v2.Resource(name=topic), endpoints=endpoints)

        try:
            answer = await self._name_servers.call(service_rpc.QUERY_ROUTE, request)
        except NotFound:
            self.forget(topic)
            raise
        return self._learn(Route(topic, answer.message_queues))

    def _pulled(self, topic: str, pull: asyncio.Task[Route]) -> None:
        del self._pulls[topic]
        self._pulled_at_s[topic] = asyncio.get_running_loop().time()
        if not pull.cancelled() and (error := pull.exception()) is not None:
            _log.debug("no route of %s: %s", topic, error)

    def _learn(self, route: Route) -> Route:
        self._known[route.topic] = route
        if route.topic not in self._keepers:
            keep = self._keep_watching(route.topic) if self._watch else self._keep_pulling(route.topic)
            self._keepers[route.topic] = asyncio.create_task(keep, name=f"kourou route of {route.topic}")
        self._on_change()
        return route

    async def _keep_pulling(self, topic: str) -> None:
        while True:
            await asyncio.sleep(self._pull_interval_s)
            try:
                await self.pull(topic)
            except KourouError as error:
                _log.debug("the route of %s stays as it was: %s", topic, error)

    async def _keep_watching(self, topic: str) -> None:
        version = failures = 0
        while True:
            try:
                version = await self._watch_once(topic, version)
                failures = 0
            except Unsupported:
                _log.info("the NameServer cannot watch routes; they are pulled every %s s", self._pull_interval_s)
                await self._keep_pulling(topic)
            except NotFound:
                self.forget(topic)
            except KourouError as error:
                _log.debug("watching the route of %s failed: %s", topic, error)
                version = 0
                failures += 1
                await asyncio.sleep(_WATCH_AGAIN.jittered_s(failures))

    async def _watch_once(self, topic: str, version: int) -> int:
        def request(endpoints: v2.Endpoints) -> routing_pb2.WatchRouteRequest:
            return routing_pb2.WatchRouteRequest(
                topic=v2.Resource(name=topic),
                endpoints=endpoints,
                known_version=version,
                max_wait=timedelta(seconds=WATCH_WAIT_S),
            )

        answer = await self._name_servers.call(routing_rpc.WATCH_ROUTE, request, wait_s=WATCH_WAIT_S)
        if answer.version != version:
            self._learn(Route(topic, answer.message_queues))
        return answer.version
