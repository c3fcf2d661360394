"""EndTransaction: a producer says what became of its half message."""

from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou_broker.operations.clients import Clients
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.transactions import Transactions
from kourou_service.door import OK, client_id, serve_unary
from kourou_service.engine import Call, Engine


class EndingDoor:
    def __init__(self, definitions: Definitions, clients: Clients, transactions: Transactions) -> None:
        self._definitions = definitions
        self._clients = clients
        self._transactions = transactions

    def open(self, engine: Engine) -> None:
        serve_unary(engine, service_rpc.END_TRANSACTION, self._end)

    async def _end(self, request: service_pb2.EndTransactionRequest, call: Call) -> service_pb2.EndTransactionResponse:
        self._clients.touch(client_id(call), call)
        topic = self._definitions.topic(request.topic)
        await self._transactions.end(topic, request.transaction_id, request.message_id, request.resolution)
        return service_pb2.EndTransactionResponse(status=OK)
