"""RecallMessage, for messages of this broker and, passed on, of others."""

from collections.abc import Awaitable, Callable, Mapping

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou_broker.operations.clients import Clients
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.recall import Recalling
from kourou_broker.state.definitions import name_of
from kourou_service.door import OK, client_id, serve_unary
from kourou_service.engine import Call, Engine
from kourou_service.recall_handle import RecallHandle
from kourou_service.refusal import Refused

PassOn = Callable[
    [str, service_pb2.RecallMessageRequest, Mapping[str, str | bytes]], Awaitable[service_pb2.RecallMessageResponse]
]
"""Takes the broker that has the message, the request and its metadata."""


class RecallingDoor:
    def __init__(
        self, definitions: Definitions, clients: Clients, recalling: Recalling, pass_on: PassOn, broker: str
    ) -> None:
        """`broker` is this one's name."""
        self._definitions = definitions
        self._clients = clients
        self._recalling = recalling
        self._pass_on = pass_on
        self._broker = broker

    def open(self, engine: Engine) -> None:
        serve_unary(engine, service_rpc.RECALL_MESSAGE, self._recall)

    async def _recall(self, request: service_pb2.RecallMessageRequest, call: Call) -> service_pb2.RecallMessageResponse:
        self._clients.touch(client_id(call), call)
        handle = RecallHandle.parse(request.recall_handle)
        if handle.topic != str(name_of(request.topic)):
            raise Refused(
                definition_pb2.BAD_REQUEST,
                f"the recall handle is of topic {handle.topic}, and the request names {name_of(request.topic)}",
            )
        if handle.broker != self._broker:
            return await self._pass_on(handle.broker, request, call.metadata)
        await self._recalling.recall(self._definitions.topic(request.topic), handle)
        return service_pb2.RecallMessageResponse(status=OK, message_id=handle.message_id)
