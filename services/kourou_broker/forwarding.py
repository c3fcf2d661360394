"""Calls about messages that another broker has: passed on to it."""

from collections.abc import Mapping

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.transport import RpcError, Transport
from kourou_broker.routes import Routes
from kourou_broker.state.definitions import name_of
from kourou_service.client_headers import client_headers
from kourou_service.listener import addresses_of
from kourou_service.refusal import Refused

FORWARDED_HEADER = "x-kourou-forwarded"
"""Names the broker that passed a call on: it is not passed on again."""
_TIMEOUT_S = 3.0


class Forwarder:
    def __init__(self, transport: Transport, routes: Routes, reached_by: str, name: str) -> None:
        """`reached_by` is the other brokers' listener by which this one, of that name, reaches them."""
        self._transport = transport
        self._routes = routes
        self._reached_by = reached_by
        self._name = name

    async def recall(
        self, owner: str, request: service_pb2.RecallMessageRequest, metadata: Mapping[str, str | bytes]
    ) -> service_pb2.RecallMessageResponse:
        """Raises Refused when the owner cannot be asked."""
        if FORWARDED_HEADER in metadata:
            raise Refused(definition_pb2.BAD_REQUEST, f"the handle is of broker {owner}, and this is {self._name}")
        queues = await self._routes.ask(name_of(request.topic), self._reached_by)
        endpoints = next((queue.broker.endpoints for queue in queues if queue.broker.name == owner), None)
        if endpoints is None:
            raise Refused(
                definition_pb2.PROXY_TIMEOUT,
                f"broker {owner}, which has the message, is not registered for topic {request.topic.name}",
            )
        address = str(addresses_of(endpoints)[0])
        try:
            reply = await self._transport.channel(address).unary(
                service_rpc.RECALL_MESSAGE,
                request,
                timeout_s=_TIMEOUT_S,
                metadata=[*client_headers(metadata), (FORWARDED_HEADER, self._name)],
            )
        except RpcError as error:
            raise Refused(
                definition_pb2.PROXY_TIMEOUT, f"broker {owner}, which has the message, does not answer ({error})"
            ) from None
        return reply.message
