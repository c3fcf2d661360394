"""Calls that a client makes at its access point and that a broker alone can answer: passed on to one that can."""

from collections.abc import Mapping

import structlog

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.transport import RpcError, Transport
from kourou_namesrv.registry import TopicKey
from kourou_namesrv.routes import Routes
from kourou_service.listener import Way, addresses_of
from kourou_service.refusal import Refused

_logger = structlog.stdlib.get_logger("kourou_namesrv")


class Forwarder:
    def __init__(
        self, transport: Transport, routes: Routes, reached_by: str, *, timeout_s: float, max_calls: int
    ) -> None:
        """`reached_by` names the brokers' listener, in plaintext, by which this NameServer reaches them."""
        self._transport = transport
        self._routes = routes
        self._reached_by = Way(reached_by)
        self._timeout_s = timeout_s
        self._max_calls = max_calls
        self._running = 0

    async def query_assignment(
        self,
        request: service_pb2.QueryAssignmentRequest,
        topic: TopicKey,
        way: Way,
        metadata: Mapping[str, str | bytes],
    ) -> service_pb2.QueryAssignmentResponse:
        """Asks the topic's brokers one after the other until one answers: all answer alike. Raises Refused."""
        if self._running >= self._max_calls:
            raise Refused(v2.TOO_MANY_REQUESTS, f"{self._running} calls are being passed on to brokers already")
        headers = [(key, value) for key, value in metadata.items() if _is_clients(key) and isinstance(value, str)]
        failure = "none has a plaintext listener"
        self._running += 1
        try:
            for broker, as_client_sees_it in self._routes.leader_endpoints(topic, self._reached_by, way):
                address = str(addresses_of(broker)[0])
                # A broker knows its own listeners and not this access point: its own address says the same.
                request.endpoints.CopyFrom(as_client_sees_it)
                channel = self._transport.channel(address)
                try:
                    reply = await channel.unary(
                        service_rpc.QUERY_ASSIGNMENT, request, timeout_s=self._timeout_s, metadata=headers
                    )
                except RpcError as error:
                    failure = f"{address}: {error}"
                    _logger.warning("a broker does not answer", address=address, error=str(error))
                else:
                    return reply.message
        finally:
            self._running -= 1
        raise Refused(v2.PROXY_TIMEOUT, f"no broker of {topic} answers ({failure})")


def _is_clients(key: str) -> bool:
    return key.startswith("x-") or key == "authorization"
