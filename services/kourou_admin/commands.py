"""Commands to single clients, passed on by a broker that the client is connected to."""

from __future__ import annotations

from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    PrintThreadStackTraceRequest,
    PrintThreadStackTraceResponse,
    ReconnectClientRequest,
    ReconnectClientResponse,
    VerifyMessageRequest,
    VerifyMessageResponse,
)
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.routing.v1.routing_pb2 import BrokerInfo
from kourou.protocol.method import UnaryMethod
from kourou_admin.cluster import A, Answer, Cluster, Q
from kourou_admin.definitions import check_topic_name
from kourou_admin.outcomes import merge, overall
from kourou_service.door import OK
from kourou_service.refusal import Refused

_CLIENT_TIMEOUT_S = 10.0
"""A broker gives a client 5 s."""
# With these another broker may do better. Whatever else is said comes from the client, which says it everywhere.
_NEXT = frozenset(
    (
        Code.NOT_FOUND,
        Code.TOPIC_NOT_FOUND,
        Code.MESSAGE_NOT_FOUND,
        Code.PRECONDITION_FAILED,
        Code.HA_NOT_AVAILABLE,
    )
)


class Commands:
    def __init__(self, cluster: Cluster, search_timeout_s: float) -> None:
        """`search_timeout_s`: how long a broker may take to find a message."""
        self._cluster = cluster
        self._search_timeout_s = search_timeout_s

    async def print_thread_stack_trace(self, request: PrintThreadStackTraceRequest) -> PrintThreadStackTraceResponse:
        brokers = await self._connected_to(request.client_id)
        question = broker_pb2.PrintThreadStackTraceRequest(client_id=request.client_id)
        broker, answer = await self._first(brokers, broker_rpc.PRINT_THREAD_STACK_TRACE, question, _CLIENT_TIMEOUT_S)
        return PrintThreadStackTraceResponse(status=OK, broker=broker, stack_trace=answer.stack_trace)

    async def verify_message(self, request: VerifyMessageRequest) -> VerifyMessageResponse:
        check_topic_name(request.topic)
        if not request.message_id:
            raise Refused(Code.ILLEGAL_MESSAGE_ID, "the message id is missing")
        brokers = await self._connected_to(request.client_id)
        question = broker_pb2.VerifyMessageRequest(
            client_id=request.client_id, topic=request.topic, message_id=request.message_id
        )
        timeout_s = self._search_timeout_s + _CLIENT_TIMEOUT_S
        broker, _answer = await self._first(brokers, broker_rpc.VERIFY_MESSAGE, question, timeout_s)
        return VerifyMessageResponse(status=OK, broker=broker)

    async def reconnect_client(self, request: ReconnectClientRequest) -> ReconnectClientResponse:
        brokers = await self._connected_to(request.client_id)
        question = broker_pb2.ReconnectClientRequest(client_id=request.client_id)
        answers = await self._cluster.ask_all(brokers, broker_rpc.RECONNECT_CLIENT, question)
        outcomes = [answer.outcome for answer in answers]
        return ReconnectClientResponse(status=overall(outcomes), outcomes=outcomes)

    async def _connected_to(self, client_id: str) -> list[BrokerInfo]:
        """The brokers that know the client. Raises Refused when none of those that answer does."""
        if not client_id:
            raise Refused(Code.BAD_REQUEST, "the client's id is missing")
        leaders = await self._cluster.leaders()
        answers = await self._cluster.ask_all(
            leaders.values(), broker_rpc.LIST_CLIENTS, broker_pb2.ListClientsRequest()
        )
        responses, failures = merge(answers)
        known_to = [
            leaders[broker]
            for broker, response in responses
            if any(client.client_id == client_id for client in response.clients)
        ]
        if not known_to:
            without = f"; no answer from {', '.join(failure.broker for failure in failures)}" if failures else ""
            raise Refused(
                Code.NOT_FOUND, f"no client {client_id!r} is connected{without}; `kourou client list` shows all"
            )
        return known_to

    async def _first(
        self, brokers: list[BrokerInfo], method: UnaryMethod[Q, A], question: Q, timeout_s: float
    ) -> tuple[str, A]:
        """The first broker that could do it, and its answer. Raises Refused."""
        failures: list[Answer[A]] = []
        for broker in brokers:
            answer = await self._cluster.ask(broker, method, question, timeout_s)
            if answer.response is not None:
                return broker.name, answer.response
            failures.append(answer)
            if answer.status.code not in _NEXT:
                break
        why = failures[-1].status
        raise Refused(why.code, why.message)
