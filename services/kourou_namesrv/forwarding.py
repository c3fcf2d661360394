"""Calls that a client makes at its access point and that a broker alone can answer: passed on to one that can."""

import asyncio
from collections.abc import Mapping
from typing import TypeVar

import structlog
from google.protobuf.message import Message

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.method import UnaryMethod
from kourou.transport import RpcError, Transport
from kourou_namesrv.registry import TopicKey
from kourou_namesrv.routes import Routes
from kourou_service.client_headers import client_headers
from kourou_service.listener import Way, addresses_of
from kourou_service.refusal import Refused

_logger = structlog.stdlib.get_logger("kourou_namesrv")

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


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
        failure = "none has a plaintext listener"
        for broker, as_client_sees_it in self._routes.leader_endpoints(topic, self._reached_by, way):
            # A broker knows its own listeners and not this access point: its own address says the same.
            request.endpoints.CopyFrom(as_client_sees_it)
            try:
                return await self._ask(broker, service_rpc.QUERY_ASSIGNMENT, request, metadata)
            except RpcError as error:
                failure = str(error)
        raise Refused(v2.PROXY_TIMEOUT, f"no broker of {topic} answers ({failure})")

    async def recall(
        self, owner: str, request: service_pb2.RecallMessageRequest, metadata: Mapping[str, str | bytes]
    ) -> service_pb2.RecallMessageResponse:
        """Asks the broker that has the message. Raises Refused."""
        broker = self._routes.broker_endpoints(owner, self._reached_by)
        if broker is None:
            raise Refused(v2.PROXY_TIMEOUT, f"broker {owner}, which has the message, is not registered")
        try:
            return await self._ask(broker, service_rpc.RECALL_MESSAGE, request, metadata)
        except RpcError as error:
            raise Refused(
                v2.PROXY_TIMEOUT, f"broker {owner}, which has the message, does not answer ({error})"
            ) from None

    async def sync_lite_subscription(
        self, request: service_pb2.SyncLiteSubscriptionRequest, topic: TopicKey, metadata: Mapping[str, str | bytes]
    ) -> service_pb2.SyncLiteSubscriptionResponse:
        """Tells all brokers of the topic, since each has lite topics of its own. Raises Refused if none answers.

        A broker that is away hears of it when the client says it again, as it does all the time; a refusal counts.
        """
        brokers = [reached for reached, _ in self._routes.leader_endpoints(topic, self._reached_by, self._reached_by)]
        asked = (self._ask(broker, service_rpc.SYNC_LITE_SUBSCRIPTION, request, metadata) for broker in brokers)
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        answers = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        for problem in outcomes:
            if isinstance(problem, BaseException) and not isinstance(problem, RpcError):
                raise problem
        if not answers:
            failure = next((str(problem) for problem in outcomes), "none has a plaintext listener")
            raise Refused(v2.PROXY_TIMEOUT, f"no broker of {topic} answers ({failure})")
        return next((answer for answer in answers if answer.status.code != v2.OK), answers[0])

    async def _ask(
        self, broker: v2.Endpoints, method: UnaryMethod[Q, A], request: Q, metadata: Mapping[str, str | bytes]
    ) -> A:
        """Raises RpcError, and Refused when too many calls are under way."""
        if self._running >= self._max_calls:
            raise Refused(v2.TOO_MANY_REQUESTS, f"{self._running} calls are being passed on to brokers already")
        address = str(addresses_of(broker)[0])
        self._running += 1
        try:
            channel = self._transport.channel(address)
            reply = await channel.unary(method, request, timeout_s=self._timeout_s, metadata=client_headers(metadata))
        except RpcError as error:
            _logger.warning("a broker does not answer", address=address, error=str(error))
            raise
        else:
            return reply.message
        finally:
            self._running -= 1
