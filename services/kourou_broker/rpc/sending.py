"""SendMessage, the hottest call: no task, no coroutine, one object a call."""

from collections.abc import Sequence
from functools import partial
from time import perf_counter

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou_broker.operations.clients import Clients
from kourou_broker.operations.journal import Stored
from kourou_broker.operations.send import Sending
from kourou_broker.operations.traffic import Traffic
from kourou_service.door import OK, client_id, parse, refusal
from kourou_service.engine import AbortCall, Engine, Metadata, UnaryCall
from kourou_service.metrics.calls import Meter
from kourou_service.refusal import Refused

STORED_HEADER = "x-kourou-stored"
"""Trailing metadata, for those whose request has it, too: `queue.position.place` of the first entry; each further one
has the next place and offset. If they do not lie together, each has its own, separated by commas.

To tell all clients would take a tenth of what a send costs, and only ours listen."""
_MAX_PLACES = 128
"""Metadata must stay small: for more messages that do not lie together it is left out."""
PRODUCER_GROUP_HEADER = "x-kourou-producer-group"

_KEPT_UP_TO = 64
"""Messages in one call: calls with more are few."""
_Response = tuple[service_pb2.SendMessageResponse, list[service_pb2.SendResultEntry]]


class _Responses:
    """OK to some messages: such responses differ in ids and offsets alone, so the rest of each is made once."""

    def __init__(self) -> None:
        self._made: dict[int, _Response] = {}

    def encode(self, message_ids: Sequence[str], base: int) -> bytes:
        """`base`: the offset of the first one."""
        response, entries = self._made.get(len(message_ids)) or self._make(len(message_ids))
        for offset, (entry, message_id) in enumerate(zip(entries, message_ids, strict=True), base):
            entry.message_id = message_id
            entry.offset = offset
        return response.SerializeToString()

    def encode_held(self, message_ids: Sequence[str], where: Stored) -> bytes:
        handles = where.recall_handles or ("",) * len(message_ids)
        entries = [
            service_pb2.SendResultEntry(
                status=OK, message_id=message_id, recall_handle=handle, transaction_id=where.transaction_id
            )
            for message_id, handle in zip(message_ids, handles, strict=True)
        ]
        return service_pb2.SendMessageResponse(status=OK, entries=entries).SerializeToString()

    def encode_each(self, message_ids: Sequence[str], places: Sequence[Stored]) -> bytes:
        """Of messages that do not lie together."""
        entries = [
            service_pb2.SendResultEntry(
                status=OK,
                message_id=message_id,
                offset=max(where.base, 0),
                recall_handle="".join(where.recall_handles),
                transaction_id=where.transaction_id,
            )
            for message_id, where in zip(message_ids, places, strict=True)
        ]
        return service_pb2.SendMessageResponse(status=OK, entries=entries).SerializeToString()

    def _make(self, count: int) -> _Response:
        response = service_pb2.SendMessageResponse(status=OK)
        made = response, [response.entries.add(status=OK) for _ in range(count)]
        if count <= _KEPT_UP_TO:
            self._made[count] = made
        return made


class _Send:
    """A call that waits for the disk."""

    __slots__ = ("_call", "_meter", "_responses", "_started", "_traffic", "followed", "message_ids", "tells_places")

    def __init__(self, call: UnaryCall, meter: Meter, traffic: Traffic, responses: _Responses) -> None:
        self._started = perf_counter()
        self._responses = responses
        self._call = call
        self._meter = meter
        self.followed = meter.follow(call)
        self._traffic = traffic
        self.message_ids: Sequence[str] = ()
        self.tells_places = False

    def stored(self, where: Stored | Refused) -> None:
        if isinstance(where, Refused):
            self.refuse(where)
            return
        if where.each:
            response = self._responses.encode_each(self.message_ids, where.each)
        elif where.recall_handles or where.transaction_id:
            response = self._responses.encode_held(self.message_ids, where)
        else:
            response = self._responses.encode(self.message_ids, where.base)
        self._call.reply(response, _trailing(where.each or (where,)) if self.tells_places else ())
        self._meter.done(self._started, definition_pb2.OK, self.followed)

    def refuse(self, problem: Exception) -> None:
        response = refusal(service_pb2.SendMessageResponse, problem, self._call, self.followed)
        code = response.status.code
        self._traffic.refused_sends[code] += 1
        self._call.reply(response.SerializeToString())
        self._meter.done(self._started, code, self.followed)

    def abort(self, problem: AbortCall) -> None:
        self._call.fail(problem.code, problem.details)
        self._meter.done(self._started, problem.code, self.followed)


def _trailing(places: Sequence[Stored]) -> Metadata:
    if len(places) > _MAX_PLACES:
        return ()
    return ((STORED_HEADER, ",".join(f"{where.queue}.{where.position}.{where.place}" for where in places)),)


class SendingDoor:
    def __init__(self, sending: Sending, clients: Clients, traffic: Traffic) -> None:
        self._sending = sending
        self._clients = clients
        self._traffic = traffic
        self._responses = _Responses()

    def open(self, engine: Engine) -> None:
        path = service_rpc.SEND_MESSAGE.path
        engine.unary(path, partial(self._send, engine.meters.of(path)))

    def _send(self, meter: Meter, request: bytes, call: UnaryCall) -> None:
        waiting = _Send(call, meter, self._traffic, self._responses)
        try:
            parsed = parse(service_pb2.SendMessageRequest, request)
            if waiting.followed is not None:
                waiting.followed.about(parsed)
            messages = parsed.messages
            metadata = call.metadata
            self._clients.touch(client_id(call), call, str(metadata.get(PRODUCER_GROUP_HEADER, "")))
            waiting.tells_places = STORED_HEADER in metadata
            waiting.message_ids = [message.system_properties.message_id for message in messages]
            self._sending.send(messages, waiting.stored, waiting.message_ids)
        except AbortCall as problem:
            waiting.abort(problem)
        except Exception as problem:
            waiting.refuse(problem)
