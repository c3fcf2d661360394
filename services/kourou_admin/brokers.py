"""Brokers with their permissions, routes and live clients."""

from __future__ import annotations

from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code, Permission
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    Broker,
    BrokerClient,
    ForgetBrokerRequest,
    ForgetBrokerResponse,
    GetRouteRequest,
    GetRouteResponse,
    ListBrokersRequest,
    ListBrokersResponse,
    ListClientsRequest,
    ListClientsResponse,
    SetBrokerPermissionRequest,
    SetBrokerPermissionResponse,
)
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.routing.v1 import routing_rpc
from kourou.protocol.kourou.routing.v1.routing_pb2 import BrokerInfo, WatchRouteRequest
from kourou_admin.cluster import Answer, Cluster, pick
from kourou_admin.definitions import check_topic_name, key
from kourou_admin.outcomes import merge, overall, reading
from kourou_service.door import OK
from kourou_service.refusal import Refused


class Brokers:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def list(self, _: ListBrokersRequest) -> ListBrokersResponse:
        brokers = await self._cluster.brokers()
        request = broker_pb2.DescribeBrokerRequest()
        answers = await self._cluster.ask_all(brokers, broker_rpc.DESCRIBE_BROKER, request)
        views = [_view(info, answer) for info, answer in zip(brokers, answers, strict=True)]
        failures = [answer.outcome for answer in answers if answer.response is None]
        return ListBrokersResponse(status=reading(failures), brokers=views)

    async def set_permission(self, request: SetBrokerPermissionRequest) -> SetBrokerPermissionResponse:
        if request.permission == Permission.PERMISSION_UNSPECIFIED:
            raise Refused(Code.BAD_REQUEST, "the permission has to be NONE, READ, WRITE or READ_WRITE")
        if not request.broker:
            raise Refused(Code.BAD_REQUEST, "the broker's name is missing")
        chosen = pick(await self._cluster.leaders(), [request.broker])
        change = broker_pb2.SetPermissionRequest(permission=request.permission)
        answers = await self._cluster.ask_all(chosen.values(), broker_rpc.SET_PERMISSION, change)
        outcomes = [answer.outcome for answer in answers]
        return SetBrokerPermissionResponse(status=overall(outcomes), outcomes=outcomes)

    async def forget(self, request: ForgetBrokerRequest) -> ForgetBrokerResponse:
        if not request.broker:
            raise Refused(Code.BAD_REQUEST, "the broker's name is missing")
        leaders = await self._cluster.leaders()
        if request.broker in leaders:
            raise Refused(
                Code.PRECONDITION_FAILED,
                f"{request.broker} is registered: drain it, or wait until it is evicted",
            )
        described = await self._cluster.ask_all(
            leaders.values(), broker_rpc.DESCRIBE_BROKER, broker_pb2.DescribeBrokerRequest()
        )
        knowing = [each.broker for each in described if each.response and request.broker in each.response.known_brokers]
        silent = [answer.outcome for answer in described if answer.response is None]
        if not knowing and not silent:
            raise Refused(Code.NOT_FOUND, f"no broker knows one named {request.broker!r}")
        order = broker_pb2.ForgetBrokerRequest(broker=request.broker)
        answers = await self._cluster.ask_all((leaders[name] for name in knowing), broker_rpc.FORGET_BROKER, order)
        outcomes = [answer.outcome for answer in answers] + silent
        return ForgetBrokerResponse(status=overall(outcomes), outcomes=outcomes)

    async def route(self, request: GetRouteRequest) -> GetRouteResponse:
        check_topic_name(request.topic)
        response = await self._cluster.ask_name_server(
            routing_rpc.WATCH_ROUTE,
            lambda endpoints: WatchRouteRequest(topic=request.topic, endpoints=endpoints),
        )
        return GetRouteResponse(status=OK, message_queues=response.message_queues)

    async def clients(self, request: ListClientsRequest) -> ListClientsResponse:
        leaders = await self._cluster.leaders()
        answers = await self._cluster.ask_all(
            leaders.values(), broker_rpc.LIST_CLIENTS, broker_pb2.ListClientsRequest()
        )
        responses, failures = merge(answers)
        group = key(request.group) if request.HasField("group") else None
        clients = [
            BrokerClient(broker=broker, client=client)
            for broker, response in responses
            for client in response.clients
            if group is None or key(client.group) == group
        ]
        clients.sort(key=lambda entry: (key(entry.client.group), entry.client.client_id, entry.broker))
        return ListClientsResponse(status=reading(failures), clients=clients, failures=failures)


def _view(info: BrokerInfo, answer: Answer[broker_pb2.DescribeBrokerResponse]) -> Broker:
    return Broker(info=info, description=answer.response, reachable=answer.status)
