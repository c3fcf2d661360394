"""What becomes of received messages: acknowledged, lent for longer or given back, moved to the dead letters."""

import asyncio
from functools import partial
from time import perf_counter

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou_broker.operations.clients import Clients
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.delivery import Deliveries
from kourou_broker.operations.journal import Journal
from kourou_broker.rpc.receiving import asked_invisible_ms
from kourou_service.door import OK, client_id, parse, refusal, serve_unary, status
from kourou_service.engine import AbortCall, Call, Engine, UnaryCall
from kourou_service.metrics.calls import Meter
from kourou_service.refusal import Refused

MAX_ACKS = 4096


class SettlingDoor:
    def __init__(self, definitions: Definitions, clients: Clients, deliveries: Deliveries, journal: Journal) -> None:
        self._definitions = definitions
        self._clients = clients
        self._deliveries = deliveries
        self._journal = journal

    def open(self, engine: Engine) -> None:
        path = service_rpc.ACK_MESSAGE.path
        engine.unary(path, partial(self._ack, engine.meters.of(path)))
        serve_unary(engine, service_rpc.CHANGE_INVISIBLE_DURATION, self._change)
        serve_unary(engine, service_rpc.FORWARD_MESSAGE_TO_DEAD_LETTER_QUEUE, self._forward)

    def _ack(self, meter: Meter, data: bytes, call: UnaryCall) -> None:
        started = perf_counter()
        followed = meter.follow(call)

        def reply(response: service_pb2.AckMessageResponse) -> None:
            call.reply(response.SerializeToString())
            meter.done(started, response.status.code, followed)

        try:
            request = parse(service_pb2.AckMessageRequest, data)
            if followed is not None:
                followed.about(request)
            response = self._settle(request, call)
        except AbortCall as problem:
            meter.done(started, problem.code, followed)
            raise
        except Exception as problem:
            reply(refusal(service_pb2.AckMessageResponse, problem, call, followed))
        else:
            self._journal.when_durable(lambda: reply(response))

    def _settle(self, request: service_pb2.AckMessageRequest, call: Call) -> service_pb2.AckMessageResponse:
        self._clients.touch(client_id(call), call)
        group = self._definitions.group(request.group)
        topic = self._definitions.topic(request.topic)
        if not 0 < len(request.entries) <= MAX_ACKS:
            raise Refused(definition_pb2.BAD_REQUEST, f"an ack has 1 to {MAX_ACKS} entries, not {len(request.entries)}")
        response = service_pb2.AckMessageResponse()
        failed: list[definition_pb2.Status] = []
        for entry in request.entries:
            result = response.entries.add(message_id=entry.message_id, receipt_handle=entry.receipt_handle)
            try:
                progress, offset, _lease = self._deliveries.held(group, topic, entry.receipt_handle)
            except Refused as problem:
                failed.append(status(problem.code, problem.message))
                result.status.CopyFrom(failed[-1])
            else:
                self._deliveries.acknowledge(progress, [offset])
                result.status.CopyFrom(OK)
        response.status.CopyFrom(_overall(failed, len(response.entries)))
        return response

    async def _change(
        self, request: service_pb2.ChangeInvisibleDurationRequest, call: Call
    ) -> service_pb2.ChangeInvisibleDurationResponse:
        self._clients.touch(client_id(call), call)
        group = self._definitions.group(request.group)
        topic = self._definitions.topic(request.topic)
        handle, _ms = self._deliveries.change_invisible(
            group, topic, request.receipt_handle, asked_invisible_ms(request), suspend=request.suspend
        )
        return service_pb2.ChangeInvisibleDurationResponse(status=OK, receipt_handle=handle)

    async def _forward(
        self, request: service_pb2.ForwardMessageToDeadLetterQueueRequest, call: Call
    ) -> service_pb2.ForwardMessageToDeadLetterQueueResponse:
        self._clients.touch(client_id(call), call)
        group = self._definitions.group(request.group)
        topic = self._definitions.topic(request.topic)
        # what was begun is answered even if the client goes away: half of it cannot be taken back
        await asyncio.shield(self._deliveries.bury(group, topic, request.receipt_handle))
        return service_pb2.ForwardMessageToDeadLetterQueueResponse(status=OK)


def _overall(failed: list[definition_pb2.Status], entries: int) -> definition_pb2.Status:
    if not failed:
        return OK
    if len(failed) < entries:
        return status(definition_pb2.MULTIPLE_RESULTS, f"{len(failed)} of {entries} entries failed")
    return failed[0]
