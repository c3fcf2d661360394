"""Sending by SendMessage of apache.rocketmq.v2, which all RocketMQ brokers know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from kourou.errors import KourouError, ServerFailure, error_of_status
from kourou.frame import Frame, Limits
from kourou.limits import MAX_BODY_BYTES
from kourou.message import to_protobuf
from kourou.message_id import Place, message_id_after
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp
from kourou.results import Outcome, SendResult
from kourou.route import Queue
from kourou.wire import Wire

_LIMITS = Limits(max_count=128, max_bytes=MAX_BODY_BYTES)


class RocketmqOutbox:
    """kourou.outbox.Outbox."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def limits(self, address: str) -> Limits:
        return _LIMITS

    async def send(self, frame: Frame, queue: Queue, timeout_s: float) -> Sequence[Outcome]:
        """A frame that was made for the stream door may be too large for one request: then it takes several."""
        outcomes: list[Outcome] = []
        for start in range(0, len(frame.messages), _LIMITS.max_count):
            places = range(start, min(start + _LIMITS.max_count, len(frame.messages)))
            outcomes += await self._request(_encoded(frame, places, queue.id), queue, timeout_s)
        return outcomes

    async def close(self) -> None:
        """Requests end with the client's connections."""

    async def _request(self, messages: list[v2.Message], queue: Queue, timeout_s: float) -> list[Outcome]:
        request = service_pb2.SendMessageRequest(messages=messages)
        reply = await self._wire.call(queue.address, service_rpc.SEND_MESSAGE, request, timeout_s)
        entries = reply.message.entries
        if len(entries) != len(messages):
            text = f"{queue.broker} answered {len(messages)} messages with {len(entries)} results"
            raise ServerFailure(v2.INTERNAL_ERROR, text)
        places = Place.of_trailing(reply.trailing, len(entries)) or [None] * len(entries)
        outcomes: list[Outcome] = [
            error_of_status(entry.status) or _result(entry, queue, place)
            for entry, place in zip(entries, places, strict=True)
        ]
        if all(isinstance(outcome, KourouError) for outcome in outcomes):
            raise cast("KourouError", outcomes[0])
        return outcomes


def _encoded(frame: Frame, places: range, queue_id: int) -> list[v2.Message]:
    seconds, nanos = divmod(frame.born_ns, 1_000_000_000)
    born = Timestamp(seconds=seconds, nanos=nanos)
    encoded = [
        to_protobuf(frame.messages[place], message_id_after(frame.first_id, place), born, frame.kind.type)
        for place in places
    ]
    for message in encoded:
        message.system_properties.queue_id = queue_id
    return encoded


def _result(entry: service_pb2.SendResultEntry, asked: Queue, place: Place | None) -> SendResult:
    """`asked`: the queue that the broker was asked for; `place`: where the message is, if it says so."""
    queue_id = asked.id if place is None else place.queue_id
    return SendResult(
        message_id=entry.message_id,
        offset_message_id=None if place is None else place.offset_message_id(asked.broker),
        topic=asked.topic,
        broker=asked.broker,
        queue_id=queue_id,
        offset=entry.offset if queue_id >= 0 else -1,
        recall_handle=entry.recall_handle or None,
        transaction_id=entry.transaction_id or None,
    )
