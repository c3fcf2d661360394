"""MessagingService as an access point: what official clients ask of the address they are given.

Routes and settings are answered here, what a broker alone knows is passed on to one, and the rest is refused with the
address to use instead.
"""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.method import ServerStreamMethod, UnaryMethod
from kourou_namesrv.forwarding import Forwarder
from kourou_namesrv.readiness import Readiness
from kourou_namesrv.registry import TopicKey
from kourou_namesrv.routes import Routes
from kourou_namesrv.routing import check_open, no_queues, topic_key
from kourou_service.client_settings import settings_answer
from kourou_service.door import OK, client_id, parse, serve_stream, serve_unary, status
from kourou_service.engine import Call, Engine, StreamCall
from kourou_service.listener import ListenerNames, addresses_of
from kourou_service.recall_handle import RecallHandle
from kourou_service.refusal import Refused

# Calls of a broker, with where the request says which topic is meant (if it does).
_OF_BROKERS: tuple[tuple[UnaryMethod[Any, Any], Callable[[Any], v2.Resource | None]], ...] = (
    (service_rpc.SEND_MESSAGE, lambda request: request.messages[0].topic if request.messages else None),
    (service_rpc.ACK_MESSAGE, lambda request: request.topic),
    (service_rpc.CHANGE_INVISIBLE_DURATION, lambda request: request.topic),
    (service_rpc.FORWARD_MESSAGE_TO_DEAD_LETTER_QUEUE, lambda request: request.topic),
    (service_rpc.END_TRANSACTION, lambda request: request.topic),
    (service_rpc.UPDATE_OFFSET, lambda request: request.message_queue.topic),
    (service_rpc.GET_OFFSET, lambda request: request.message_queue.topic),
    (service_rpc.QUERY_OFFSET, lambda request: request.message_queue.topic),
)
_STREAMS_OF_BROKERS: tuple[ServerStreamMethod[Any, Any], ...] = (service_rpc.RECEIVE_MESSAGE, service_rpc.PULL_MESSAGE)


class AccessPoint:
    def __init__(self, routes: Routes, names: ListenerNames, readiness: Readiness, forwarder: Forwarder) -> None:
        self._routes = routes
        self._names = names
        self._readiness = readiness
        self._forwarder = forwarder

    def serve_on(self, engine: Engine) -> None:
        serve_unary(engine, service_rpc.QUERY_ROUTE, self.query_route)
        serve_unary(engine, service_rpc.QUERY_ASSIGNMENT, self.query_assignment)
        serve_unary(engine, service_rpc.HEARTBEAT, self.heartbeat)
        serve_unary(engine, service_rpc.NOTIFY_CLIENT_TERMINATION, self.notify_client_termination)
        serve_unary(engine, service_rpc.RECALL_MESSAGE, self.recall_message)
        serve_unary(engine, service_rpc.SYNC_LITE_SUBSCRIPTION, self.sync_lite_subscription)
        engine.stream(service_rpc.TELEMETRY.path, self.telemetry)
        for method, topic_of in _OF_BROKERS:
            serve_unary(engine, method, self._refuse(method.path, topic_of))
        for stream_method in _STREAMS_OF_BROKERS:
            serve_stream(engine, stream_method, self._refuse_stream(stream_method.path))

    async def query_route(self, request: service_pb2.QueryRouteRequest, call: Call) -> service_pb2.QueryRouteResponse:
        client_id(call)
        topic = topic_key(request.topic)
        check_open(self._readiness)
        way = self._names.choose(request.endpoints, call.authority, call.listener)
        route = self._routes.route(topic, way)
        if not route.queues:
            return service_pb2.QueryRouteResponse(status=no_queues(self._routes, topic, way))
        return service_pb2.QueryRouteResponse(status=OK, message_queues=route.queues)

    async def query_assignment(
        self, request: service_pb2.QueryAssignmentRequest, call: Call
    ) -> service_pb2.QueryAssignmentResponse:
        client_id(call)
        topic = topic_key(request.topic)
        check_open(self._readiness)
        way = self._names.choose(request.endpoints, call.authority, call.listener)
        if not self._routes.route(topic, way).queues:
            return service_pb2.QueryAssignmentResponse(status=no_queues(self._routes, topic, way))
        return await self._forwarder.query_assignment(request, topic, way, call.metadata)

    async def recall_message(
        self, request: service_pb2.RecallMessageRequest, call: Call
    ) -> service_pb2.RecallMessageResponse:
        client_id(call)
        handle = RecallHandle.parse(request.recall_handle)
        check_open(self._readiness)
        return await self._forwarder.recall(handle.broker, request, call.metadata)

    async def sync_lite_subscription(
        self, request: service_pb2.SyncLiteSubscriptionRequest, call: Call
    ) -> service_pb2.SyncLiteSubscriptionResponse:
        client_id(call)
        topic = topic_key(request.topic)
        check_open(self._readiness)
        way = self._names.choose(None, call.authority, call.listener)
        if not self._routes.route(topic, way).queues:
            return service_pb2.SyncLiteSubscriptionResponse(status=no_queues(self._routes, topic, way))
        return await self._forwarder.sync_lite_subscription(request, topic, call.metadata)

    async def heartbeat(self, request: service_pb2.HeartbeatRequest, call: Call) -> service_pb2.HeartbeatResponse:
        client_id(call)
        return service_pb2.HeartbeatResponse(status=OK)

    async def notify_client_termination(
        self, request: service_pb2.NotifyClientTerminationRequest, call: Call
    ) -> service_pb2.NotifyClientTerminationResponse:
        client_id(call)
        return service_pb2.NotifyClientTerminationResponse(status=OK)

    async def telemetry(self, call: StreamCall) -> None:
        """Settings are answered; what clients report to commands is a broker's, and is left alone here."""
        try:
            client_id(call)
        except Refused as refused:
            answer = service_pb2.TelemetryCommand(status=status(refused.code, refused.message))
            await call.send(answer.SerializeToString())
            return
        while (frame := await call.receive()) is not None:
            command = parse(service_pb2.TelemetryCommand, frame)
            if command.HasField("settings"):
                await call.send(settings_answer(command.settings).SerializeToString())

    def _refuse(self, path: str, topic_of: Callable[[Any], v2.Resource | None]) -> Any:
        async def refuse(request: Message, call: Call) -> Message:
            client_id(call)
            raise self._use_a_broker(path, topic_of(request), call)

        return refuse

    def _refuse_stream(self, path: str) -> Any:
        async def refuse(request: Any, call: StreamCall) -> None:
            client_id(call)
            raise self._use_a_broker(path, request.message_queue.topic, call)

        return refuse

    def _use_a_broker(self, path: str, topic: v2.Resource | None, call: Call) -> Refused:
        name = path.rpartition("/")[2]
        advice = "send it to the brokers that QueryRoute names"
        if topic is not None:
            way = self._names.choose(None, call.authority, call.listener)
            route = self._routes.route(TopicKey.of(topic), way)
            brokers = {queue.broker.name: str(addresses_of(queue.broker.endpoints)[0]) for queue in route.queues}
            if brokers:
                advice = "send it to a broker of the topic: " + ", ".join(sorted(brokers.values())[:8])
        return Refused(v2.UNSUPPORTED, f"a NameServer keeps no messages and does not answer {name}; {advice}")
