"""SendMessage, the hottest call: no task, no coroutine, one object a call."""

from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou_broker.operations.clients import Clients
from kourou_broker.operations.journal import Stored
from kourou_broker.operations.send import Sending
from kourou_broker.operations.traffic import Traffic
from kourou_service.door import OK, client_id, parse, refusal
from kourou_service.engine import Engine, UnaryCall
from kourou_service.refusal import Refused

STORED_HEADER = "x-kourou-stored"
"""Trailing metadata: `queue.position.place` of the first entry; each further one has the next place and offset."""
PRODUCER_GROUP_HEADER = "x-kourou-producer-group"


class _Send:
    """A call that waits for the disk."""

    __slots__ = ("_call", "_message_ids", "_traffic")

    def __init__(self, call: UnaryCall, message_ids: list[str], traffic: Traffic) -> None:
        self._call = call
        self._message_ids = message_ids
        self._traffic = traffic

    def stored(self, where: Stored | Refused) -> None:
        if isinstance(where, Refused):
            _refuse(self._call, where, self._traffic)
            return
        response = service_pb2.SendMessageResponse(status=OK)
        add = response.entries.add
        offset = where.base
        for message_id in self._message_ids:
            entry = add()
            entry.status.CopyFrom(OK)
            entry.message_id = message_id
            entry.offset = offset
            offset += 1
        trailing = ((STORED_HEADER, f"{where.queue}.{where.position}.{where.place}"),)
        self._call.reply(response.SerializeToString(), trailing)


class SendingDoor:
    def __init__(self, sending: Sending, clients: Clients, traffic: Traffic) -> None:
        self._sending = sending
        self._clients = clients
        self._traffic = traffic

    def open(self, engine: Engine) -> None:
        engine.unary(service_rpc.SEND_MESSAGE.path, self._send)

    def _send(self, request: bytes, call: UnaryCall) -> None:
        messages = parse(service_pb2.SendMessageRequest, request).messages
        try:
            metadata = call.metadata
            self._clients.touch(client_id(call), call, str(metadata.get(PRODUCER_GROUP_HEADER, "")))
            waiting = _Send(call, [message.system_properties.message_id for message in messages], self._traffic)
            self._sending.send(messages, waiting.stored)
        except Exception as problem:
            _refuse(call, problem, self._traffic)


def _refuse(call: UnaryCall, problem: Exception, traffic: Traffic) -> None:
    response = refusal(service_pb2.SendMessageResponse, problem, service_rpc.SEND_MESSAGE.path)
    traffic.refused_sends[response.status.code] += 1
    call.reply(response.SerializeToString())
