"""The Routing service: routes that wait for a change, and the brokers that are registered."""

import asyncio
from collections.abc import Iterable

from kourou.names import how_topic_comes, namespace_fault, topic_fault
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.routing.v1 import routing_pb2, routing_rpc
from kourou_namesrv.readiness import Readiness
from kourou_namesrv.registry import Broker, Registry, TopicKey
from kourou_namesrv.routes import Route, Routes
from kourou_service.clock import Clock
from kourou_service.door import OK, serve_unary, status
from kourou_service.engine import AbortCall, Call, Engine, StatusCode
from kourou_service.listener import ListenerNames, Way
from kourou_service.refusal import Refused

MAX_WAIT_S = 60.0
_NO_LISTENER = {
    True: "this access point speaks TLS, and no broker of {topic} has a listener that does: give brokers one, such as"
    " {name}=tls://127.0.0.1:10921, or use an access point without TLS",
    False: "this access point speaks plaintext, and brokers of {topic} take TLS only: use an access point with TLS",
}


class RoutingService:
    def __init__(
        self,
        registry: Registry,
        routes: Routes,
        names: ListenerNames,
        readiness: Readiness,
        clock: Clock,
        max_watchers: int,
    ) -> None:
        self._registry = registry
        self._routes = routes
        self._names = names
        self._readiness = readiness
        self._clock = clock
        self._max_watchers = max_watchers
        self._watchers: dict[TopicKey, set[asyncio.Event]] = {}
        self._watching = 0
        registry.on_change(self._wake)

    @property
    def watching(self) -> int:
        """Calls that wait for a change."""
        return self._watching

    def serve_on(self, engine: Engine) -> None:
        serve_unary(engine, routing_rpc.WATCH_ROUTE, self.watch_route, long_polling=True)
        serve_unary(engine, routing_rpc.LIST_BROKERS, self.list_brokers)

    async def watch_route(self, request: routing_pb2.WatchRouteRequest, call: Call) -> routing_pb2.WatchRouteResponse:
        check_open(self._readiness)
        topic = topic_key(request.topic)
        way = self._names.choose(request.endpoints, call.authority, call.listener)
        route = self._routes.route(topic, way)
        wait_s = min(request.max_wait.seconds + request.max_wait.nanos / 1e9, MAX_WAIT_S)
        if route.version == request.known_version and wait_s > 0:
            route = await self._changed_route(topic, way, request.known_version, wait_s)
        return routing_pb2.WatchRouteResponse(
            status=OK if route.queues else no_queues(self._routes, topic, way),
            version=route.version,
            message_queues=route.queues,
        )

    async def list_brokers(
        self, request: routing_pb2.ListBrokersRequest, call: Call
    ) -> routing_pb2.ListBrokersResponse:
        way = self._names.choose(request.endpoints, call.authority, call.listener)
        brokers = [self._info(broker, way) for broker in self._registry.brokers]
        return routing_pb2.ListBrokersResponse(status=OK, brokers=brokers)

    async def _changed_route(self, topic: TopicKey, way: Way, known_version: int, wait_s: float) -> Route:
        if self._watching >= self._max_watchers:
            raise Refused(v2.TOO_MANY_REQUESTS, f"{self._watching} clients wait for routes already")
        event = asyncio.Event()
        self._watching += 1
        self._watchers.setdefault(topic, set()).add(event)
        try:
            async with asyncio.timeout(wait_s):
                while (route := self._routes.route(topic, way)).version == known_version:
                    await event.wait()
                    event.clear()
            return route
        except TimeoutError:
            return self._routes.route(topic, way)
        finally:
            self._watching -= 1
            self._watchers[topic].discard(event)
            if not self._watchers[topic]:
                del self._watchers[topic]

    def _wake(self, topics: Iterable[TopicKey]) -> None:
        for topic in topics:
            for event in self._watchers.get(topic, ()):
                event.set()

    def _info(self, broker: Broker, way: Way) -> routing_pb2.BrokerInfo:
        silent_s = asyncio.get_running_loop().time() - broker.last_heard_s
        return routing_pb2.BrokerInfo(
            cluster=broker.cluster,
            name=broker.key.name,
            id=broker.key.id,
            version=broker.version,
            endpoints=self._routes.endpoints(broker, way),
            permission=broker.permission,
            started_ms=broker.started_ms,
            last_heartbeat_ms=self._clock.now_ms() - round(silent_s * 1000),
            connected=broker.connected,
            topics=len(broker.topics),
            queues=broker.queues,
        )


def check_open(readiness: Readiness) -> None:
    """Routes are not told before the NameServer is whole; gRPC's UNAVAILABLE sends clients to the next one."""
    if not readiness.open:
        missing = ", ".join(readiness.missing()) or "a first one"
        raise AbortCall(StatusCode.UNAVAILABLE, f"this NameServer has just started and waits for brokers: {missing}")


def topic_key(resource: v2.Resource) -> TopicKey:
    """Raises Refused for a name that no topic can have."""
    fault = topic_fault(resource.name) or namespace_fault(resource.resource_namespace)
    if fault:
        raise Refused(v2.ILLEGAL_TOPIC, fault)
    return TopicKey.of(resource)


def no_queues(routes: Routes, topic: TopicKey, way: Way) -> v2.Status:
    """Why a route is empty."""
    if routes.holds(topic):
        return status(v2.ILLEGAL_ACCESS_POINT, _NO_LISTENER[way.tls].format(topic=topic, name=way.name))
    return status(v2.TOPIC_NOT_FOUND, f"no topic {topic}; {how_topic_comes(topic.name)}")
