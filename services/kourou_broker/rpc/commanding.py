"""BrokerAdmin's commands to single clients."""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_broker.operations.commands import Commands
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.search import Search
from kourou_broker.rpc.delivered import Deliverer
from kourou_service.door import OK, serve_unary
from kourou_service.engine import Call, Engine
from kourou_service.refusal import Refused

_MAX_FOUND = 16
"""Messages with the id: it may have been sent again, or lie in the log as a half message, too."""


class CommandingDoor:
    def __init__(self, commands: Commands, definitions: Definitions, search: Search, deliverer: Deliverer) -> None:
        self._commands = commands
        self._definitions = definitions
        self._search = search
        self._deliverer = deliverer

    def open(self, engine: Engine) -> None:
        # How long a client takes to answer says nothing of the broker.
        serve_unary(engine, broker_rpc.PRINT_THREAD_STACK_TRACE, self._print_thread_stack_trace, long_polling=True)
        serve_unary(engine, broker_rpc.VERIFY_MESSAGE, self._verify_message, long_polling=True)
        serve_unary(engine, broker_rpc.RECONNECT_CLIENT, self._reconnect_client)

    async def _print_thread_stack_trace(
        self, request: broker_pb2.PrintThreadStackTraceRequest, call: Call
    ) -> broker_pb2.PrintThreadStackTraceResponse:
        stack_trace = await self._commands.stack_trace(request.client_id)
        return broker_pb2.PrintThreadStackTraceResponse(status=OK, stack_trace=stack_trace)

    async def _verify_message(
        self, request: broker_pb2.VerifyMessageRequest, call: Call
    ) -> broker_pb2.VerifyMessageResponse:
        topic = self._definitions.topic(request.topic)
        found = await self._search.by_message_id(topic, request.message_id, _MAX_FOUND)
        visible = [(queue, message) for queue, message in found if queue is not None]
        if not visible:
            raise Refused(
                definition_pb2.MESSAGE_NOT_FOUND,
                f"no message {request.message_id!r} that consumers can see in topic {topic.name} here",
            )
        queue, message = visible[-1]
        await self._commands.verify(request.client_id, self._deliverer.found(queue.id, message))
        return broker_pb2.VerifyMessageResponse(status=OK)

    async def _reconnect_client(
        self, request: broker_pb2.ReconnectClientRequest, call: Call
    ) -> broker_pb2.ReconnectClientResponse:
        self._commands.reconnect(request.client_id)
        return broker_pb2.ReconnectClientResponse(status=OK)
