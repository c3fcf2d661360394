"""The brokers, found through the NameServers and asked in parallel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from kourou.errors import KourouError, NotFound, ServerError
from kourou.name_servers import NameServers
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code, Endpoints, Resource, Status
from kourou.protocol.kourou.admin.v1.admin_pb2 import Outcome
from kourou.protocol.kourou.routing.v1 import routing_rpc
from kourou.protocol.kourou.routing.v1.routing_pb2 import BrokerInfo, ListBrokersRequest, WatchRouteRequest
from kourou.protocol.method import UnaryMethod
from kourou.route import address_of
from kourou.wire import Wire
from kourou_service.door import status
from kourou_service.refusal import Refused

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

# A broker tells its NameServers of a topic at once, so that this is long.
ROUTE_WAIT_S = 2.0
_ROUTE_INTERVAL_S = 0.02
_ROUTE_TIMEOUT_S = 0.5


@dataclass(frozen=True)
class Answer(Generic[A]):
    """What one broker said: a response with status OK, or a failure and no response."""

    broker: str
    response: A | None
    status: Status

    @property
    def outcome(self) -> Outcome:
        return Outcome(broker=self.broker, status=self.status)


class Cluster:
    def __init__(self, wire: Wire, name_servers: NameServers, *, timeout_s: float) -> None:
        """`timeout_s` bounds each call to a broker that does not ask for more."""
        self._wire = wire
        self._name_servers = name_servers
        self._timeout_s = timeout_s

    async def brokers(self) -> list[BrokerInfo]:
        """Every broker that is registered, ordered by name and id. Raises Refused when there is none."""
        response = await self.ask_name_server(
            routing_rpc.LIST_BROKERS, lambda endpoints: ListBrokersRequest(endpoints=endpoints)
        )
        if not response.brokers:
            raise Refused(Code.HA_NOT_AVAILABLE, "no broker is registered at the NameServers")
        return sorted(response.brokers, key=lambda broker: (broker.name, broker.id))

    async def leaders(self) -> dict[str, BrokerInfo]:
        """By broker name, the one that takes its writes: the lowest id."""
        leaders: dict[str, BrokerInfo] = {}
        for broker in await self.brokers():
            leaders.setdefault(broker.name, broker)
        return leaders

    async def ask_name_server(self, method: UnaryMethod[Q, A], request: Callable[[Endpoints], Q]) -> A:
        """The first answer. `request` is told the access point that is asked. Raises Refused."""
        try:
            return await self._name_servers.call(method, request)
        except KourouError as error:
            status = _status(error)
            raise Refused(status.code, status.message) from None

    async def wait_for_route(self, topic: Resource, brokers: Collection[str]) -> None:
        """Returns when all NameServers that answer show the topic on these brokers, or after `ROUTE_WAIT_S`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ROUTE_WAIT_S):
                points = await self._name_servers.access_points()
                await asyncio.gather(*(self._shown(address, points[address], topic, brokers) for address in points))

    async def _shown(self, address: str, point: Endpoints, topic: Resource, brokers: Collection[str]) -> None:
        request = WatchRouteRequest(topic=topic, endpoints=point)
        missing = set(brokers)
        while missing:
            try:
                answer = await self._wire.call(address, routing_rpc.WATCH_ROUTE, request, _ROUTE_TIMEOUT_S)
                missing = set(brokers) - {queue.broker.name for queue in answer.message.message_queues}
            except NotFound:
                pass
            except KourouError:
                return  # clients do not get a route from this one either
            if missing:
                await asyncio.sleep(_ROUTE_INTERVAL_S)

    async def ask(
        self, broker: BrokerInfo, method: UnaryMethod[Q, A], request: Q, timeout_s: float | None = None
    ) -> Answer[A]:
        if not broker.endpoints.addresses:
            message = f"{broker.name} has no listener for the access point by which the admin service came"
            return Answer(broker.name, None, Status(code=Code.HA_NOT_AVAILABLE, message=message))
        try:
            reply = await self._wire.call(address_of(broker.endpoints), method, request, timeout_s or self._timeout_s)
        except KourouError as error:
            return Answer(broker.name, None, _status(error))
        return Answer(broker.name, reply.message, Status(code=Code.OK, message="OK"))

    async def ask_all(
        self, brokers: Iterable[BrokerInfo], method: UnaryMethod[Q, A], request: Q, timeout_s: float | None = None
    ) -> list[Answer[A]]:
        return list(await asyncio.gather(*(self.ask(broker, method, request, timeout_s) for broker in brokers)))


def pick(leaders: Mapping[str, BrokerInfo], names: Sequence[str]) -> dict[str, BrokerInfo]:
    """The named brokers, or all when none is named. Raises Refused for an unknown name."""
    for name in names:
        if name not in leaders:
            raise Refused(Code.NOT_FOUND, f"there is no broker {name!r}; registered are {', '.join(leaders)}")
    return {name: leaders[name] for name in names} if names else dict(leaders)


def _status(error: KourouError) -> Status:
    if isinstance(error, ServerError):
        return status(error.code, error.message)
    return status(Code.HA_NOT_AVAILABLE, str(error))
