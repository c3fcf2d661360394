"""QueryRoute and QueryAssignment: a broker answers for the whole cluster, by the addresses of the caller's network."""

from collections.abc import Sequence

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou_broker.operations.assignment import Assignments, QueueId
from kourou_broker.operations.clients import Clients
from kourou_broker.operations.definitions import Definitions, can_read
from kourou_broker.operations.lite_groups import check_lite_consumer
from kourou_broker.routes import Routes
from kourou_broker.state.definitions import name_of
from kourou_service.door import OK, client_id, serve_unary
from kourou_service.engine import Call, Engine
from kourou_service.listener import ListenerNames


class RoutingDoor:
    def __init__(
        self,
        *,
        names: ListenerNames,
        routes: Routes,
        definitions: Definitions,
        clients: Clients,
        assignments: Assignments,
    ) -> None:
        self._names = names
        self._routes = routes
        self._definitions = definitions
        self._clients = clients
        self._assignments = assignments

    def open(self, engine: Engine) -> None:
        serve_unary(engine, service_rpc.QUERY_ROUTE, self._query_route)
        serve_unary(engine, service_rpc.QUERY_ASSIGNMENT, self._query_assignment)

    async def _query_route(self, request: service_pb2.QueryRouteRequest, call: Call) -> service_pb2.QueryRouteResponse:
        client_id(call)
        queues = await self._queues(request.topic, self._listener(request.endpoints, call))
        return service_pb2.QueryRouteResponse(status=OK, message_queues=queues)

    async def _query_assignment(
        self, request: service_pb2.QueryAssignmentRequest, call: Call
    ) -> service_pb2.QueryAssignmentResponse:
        client = self._clients.touch(client_id(call), call)
        topic = self._definitions.topic(request.topic)
        group = self._definitions.group_reading(topic, request.group)
        if group.lite_topic is not None:
            check_lite_consumer(group, topic, client)
        elif not client.is_simple_consumer:
            self._clients.join(client, definition_pb2.PUSH_CONSUMER, group.name, topic.name)
        queues = await self._queues(request.topic, self._listener(request.endpoints, call))
        owned = self._assignments.queues_of(group, topic, client.id)
        assigned = _one_for_each_broker(queues) if owned is None else _chosen(queues, owned)
        return service_pb2.QueryAssignmentResponse(
            status=OK, assignments=[definition_pb2.Assignment(message_queue=queue) for queue in assigned]
        )

    def _listener(self, endpoints: definition_pb2.Endpoints, call: Call) -> str:
        return self._names.choose(endpoints, call.authority, call.listener).name

    async def _queues(self, resource: definition_pb2.Resource, listener: str) -> Sequence[definition_pb2.MessageQueue]:
        queues = await self._routes.ask(name_of(resource), listener)
        if not queues:
            self._definitions.topic(resource)  # says what is wrong
        return queues


def _one_for_each_broker(queues: Sequence[definition_pb2.MessageQueue]) -> list[definition_pb2.MessageQueue]:
    """A shared group: each member asks each broker for whatever queue has messages."""
    brokers: dict[str, definition_pb2.MessageQueue] = {}
    for queue in queues:
        if can_read(queue.permission) and queue.broker.name not in brokers:
            brokers[queue.broker.name] = definition_pb2.MessageQueue()
            brokers[queue.broker.name].CopyFrom(queue)
            brokers[queue.broker.name].id = -1
    return list(brokers.values())


def _chosen(
    queues: Sequence[definition_pb2.MessageQueue], owned: Sequence[QueueId]
) -> list[definition_pb2.MessageQueue]:
    wanted = set(owned)
    return [queue for queue in queues if QueueId(queue.broker.name, queue.id) in wanted]
