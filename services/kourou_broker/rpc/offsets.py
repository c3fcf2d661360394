"""The offset calls: asked and set by consumers that keep count themselves."""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou_broker.operations.clients import Clients
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.delivery import Deliveries
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.offsets import Offsets
from kourou_broker.rpc.receiving import queue_of
from kourou_broker.state.definitions import Queue
from kourou_service.door import OK, client_id, serve_unary
from kourou_service.engine import Call, Engine
from kourou_service.refusal import Refused
from kourou_service.wire_times import milliseconds


class OffsetsDoor:
    def __init__(
        self, definitions: Definitions, clients: Clients, offsets: Offsets, deliveries: Deliveries, journal: Journal
    ) -> None:
        self._definitions = definitions
        self._clients = clients
        self._offsets = offsets
        self._deliveries = deliveries
        self._journal = journal

    def open(self, engine: Engine) -> None:
        serve_unary(engine, service_rpc.UPDATE_OFFSET, self._update)
        serve_unary(engine, service_rpc.GET_OFFSET, self._get)
        serve_unary(engine, service_rpc.QUERY_OFFSET, self._query)

    async def _update(self, request: service_pb2.UpdateOffsetRequest, call: Call) -> service_pb2.UpdateOffsetResponse:
        queue = self._queue(request.message_queue, call)
        group = self._definitions.group(request.group)
        self._offsets.set(group, [(queue, request.offset)])
        self._deliveries.offsets_set(group, queue.topic)
        await self._journal.durable()
        return service_pb2.UpdateOffsetResponse(status=OK)

    async def _get(self, request: service_pb2.GetOffsetRequest, call: Call) -> service_pb2.GetOffsetResponse:
        queue = self._queue(request.message_queue, call)
        group = self._definitions.group(request.group)
        offset = self._offsets.committed(group, queue)
        if offset is None:
            raise Refused(
                definition_pb2.OFFSET_NOT_FOUND, f"group {group.name} has no progress in queue {queue.id} yet"
            )
        return service_pb2.GetOffsetResponse(status=OK, offset=offset)

    async def _query(self, request: service_pb2.QueryOffsetRequest, call: Call) -> service_pb2.QueryOffsetResponse:
        queue = self._queue(request.message_queue, call)
        if request.query_offset_policy == definition_pb2.QueryOffsetPolicy.BEGINNING:
            offset = queue.first_offset
        elif request.query_offset_policy == definition_pb2.QueryOffsetPolicy.END:
            offset = queue.next_offset
        elif request.query_offset_policy != definition_pb2.QueryOffsetPolicy.TIMESTAMP:
            raise Refused(definition_pb2.BAD_REQUEST, f"unknown offset policy {request.query_offset_policy}")
        elif not request.HasField("timestamp"):
            raise Refused(definition_pb2.BAD_REQUEST, "the query by time names no timestamp")
        else:
            offset = self._offsets.at_time(queue, milliseconds(request.timestamp))
        return service_pb2.QueryOffsetResponse(status=OK, offset=offset)

    def _queue(self, queue: definition_pb2.MessageQueue, call: Call) -> Queue:
        self._clients.touch(client_id(call), call)
        return queue_of(self._definitions.topic(queue.topic), queue.id)
