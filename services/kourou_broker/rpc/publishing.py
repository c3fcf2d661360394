"""Stream.Publish: batches of messages, answered when they are on the disk."""

import asyncio
from functools import partial
from time import perf_counter

from google.protobuf.message import DecodeError

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.stream.v1 import stream_pb2, stream_rpc
from kourou_broker.log.batch import Batch
from kourou_broker.operations.clients import Clients
from kourou_broker.operations.journal import Stored
from kourou_broker.operations.send import Sending
from kourou_broker.operations.traffic import Traffic
from kourou_broker.rpc.answers import Answers, answering
from kourou_broker.rpc.sending import PRODUCER_GROUP_HEADER
from kourou_service.door import OK, client_id, no_such, refusal
from kourou_service.engine import Engine, StreamCall
from kourou_service.metrics.calls import Meter
from kourou_service.refusal import Refused


class PublishingDoor:
    def __init__(self, sending: Sending, clients: Clients, traffic: Traffic, *, window_bytes: int) -> None:
        """window_bytes: of requests that a stream may have without an answer."""
        self._sending = sending
        self._clients = clients
        self._traffic = traffic
        self._window_bytes = window_bytes

    def open(self, engine: Engine) -> None:
        path = stream_rpc.PUBLISH.path
        engine.stream(path, partial(self._publish, engine.meters.of(path)))

    async def _publish(self, meter: Meter, call: StreamCall) -> None:
        async with answering(call) as answers:
            publishing = _Publishing(self._sending, self._traffic, answers, meter, self._window_bytes)
            try:
                self._touch(call)
            except Refused as problem:
                answers.put(refusal(stream_pb2.PublishResponse, problem, call, None).SerializeToString())
                return
            answers.put(stream_pb2.PublishResponse(status=OK, window_bytes=self._window_bytes).SerializeToString())
            while (data := await call.receive()) is not None:
                self._touch(call)
                publishing.take(_read(data), call)
            await publishing.all_answered()

    def _touch(self, call: StreamCall) -> None:
        self._clients.touch(client_id(call), call, str(call.metadata.get(PRODUCER_GROUP_HEADER, "")))


class _Publishing:
    """One stream's requests."""

    def __init__(self, sending: Sending, traffic: Traffic, answers: Answers, meter: Meter, window_bytes: int) -> None:
        self._sending = sending
        self._traffic = traffic
        self._answers = answers
        self._meter = meter
        self._window_bytes = window_bytes
        self._unanswered: dict[int, int] = {}
        """Bytes by the request's number."""
        self._unanswered_bytes = 0
        self._idle = asyncio.Event()

    def take(self, batch: Batch, call: StreamCall) -> None:
        started = perf_counter()
        number, size = batch.number, len(batch.payload)
        if not number or number in self._unanswered:
            problem = Refused(definition_pb2.BAD_REQUEST, f"the request's number {number} is 0 or under way already")
            self._refuse(number, problem, started, call)
            return
        full = self._unanswered_bytes and self._unanswered_bytes + size > self._window_bytes
        self._unanswered[number] = size
        self._unanswered_bytes += size

        def stored(where: Stored | Refused) -> None:
            self._answered(number)
            if isinstance(where, Refused):
                self._refuse(number, where, started, call)
            else:
                self._answers.put(_response(number, where))
                self._meter.done(started, definition_pb2.OK)

        try:
            if full:
                raise Refused(
                    definition_pb2.TOO_MANY_REQUESTS,
                    f"over {self._window_bytes} bytes of requests wait for an answer: keep to the window",
                )
            self._sending.send_batch(batch, stored)
        except Exception as problem:
            self._answered(number)
            self._refuse(number, problem, started, call)

    async def all_answered(self) -> None:
        while self._unanswered:
            self._idle.clear()
            await self._idle.wait()

    def _answered(self, number: int) -> None:
        self._unanswered_bytes -= self._unanswered.pop(number)
        if not self._unanswered:
            self._idle.set()

    def _refuse(self, number: int, problem: Exception, started: float, call: StreamCall) -> None:
        response = refusal(stream_pb2.PublishResponse, problem, call, None)
        response.number = number
        self._traffic.refused_sends[response.status.code] += 1
        self._answers.put(response.SerializeToString())
        self._meter.done(started, response.status.code)


def _read(data: bytes) -> Batch:
    """Raises AbortCall when the bytes are no PublishRequest."""
    try:
        batch = Batch(data)
        _ = batch.topic
    except DecodeError:
        raise no_such(stream_pb2.PublishRequest) from None
    return batch


def _response(number: int, where: Stored) -> bytes:
    each = where.each or (where,)
    return stream_pb2.PublishResponse(
        number=number,
        status=OK,
        places=[
            stream_pb2.Place(queue=place.queue, offset=max(place.base, 0), position=place.position, index=place.place)
            for place in each
        ],
        recall_handles=[handle for place in each for handle in place.recall_handles],
        transaction_ids=[place.transaction_id for place in each if place.transaction_id],
    ).SerializeToString()
