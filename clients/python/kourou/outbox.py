"""Messages on their way to the brokers: parcels for the same topic and broker share a SendMessage, if they are of one
sort. A broker stores a request's messages in one queue, so no others may."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from kourou.coalescer import Coalescer, Limits
from kourou.errors import InvalidRequest, KourouError, ServerError, ServerFailure, error_of_status
from kourou.limits import MAX_BODY_BYTES
from kourou.message import MessageType, SendResult
from kourou.message_id import Stored
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.route import Queue
from kourou.wire import Wire

MAX_PARCEL_COUNT = 128
MAX_PARCEL_BYTES = MAX_BODY_BYTES
_LANE_LIMITS = Limits(max_in_flight=4, max_count=MAX_PARCEL_COUNT, max_bytes=MAX_PARCEL_BYTES)


Sort = tuple[MessageType, int | None]
"""A message's type and priority: messages of one sort may lie in any queue, and so in one request."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """Messages of one topic that stay together, for one try."""

    messages: Sequence[v2.Message]
    queue: Queue
    timeout_s: float
    """For the request, from when it leaves: waiting for company is not the broker's fault."""
    sort: Sort | None
    """None: it shares a request with no other, as the order within a message group or a transaction demand."""

    @property
    def count(self) -> int:
        return len(self.messages)

    @property
    def size_bytes(self) -> int:
        return sum(len(message.body) for message in self.messages)


Lane = Coalescer[Parcel, list[SendResult]]


class Outbox:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._lanes: dict[tuple[str, str, Sort], Lane] = {}

    async def send(self, parcel: Parcel) -> list[SendResult]:
        """Raises what the broker answers, or ConnectionFailed or TimeoutExceeded."""
        if parcel.sort is None:
            return await self._send_alone(parcel)
        key = parcel.queue.topic, parcel.queue.address, parcel.sort
        lane = self._lanes.get(key)
        if lane is None:
            # There may be many priorities: their lanes go when they are empty.
            on_idle = None if parcel.sort[1] is None else partial(self._lanes.pop, key, None)
            lane = self._lanes[key] = Coalescer(self._send_together, _LANE_LIMITS, on_idle)
        return await lane.submit(parcel)

    async def close(self) -> None:
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))

    async def _send_together(self, parcels: list[Parcel]) -> Sequence[list[SendResult] | Exception]:
        try:
            return await self._request(parcels)
        except InvalidRequest:
            if len(parcels) == 1:
                raise
            # One parcel is at fault, and the broker stored none of them: the others must not suffer.
            return await asyncio.gather(*map(self._outcome_alone, parcels))

    async def _outcome_alone(self, parcel: Parcel) -> list[SendResult] | Exception:
        try:
            return await self._send_alone(parcel)
        except KourouError as error:
            return error

    async def _send_alone(self, parcel: Parcel) -> list[SendResult]:
        outcome = (await self._request([parcel]))[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _request(self, parcels: list[Parcel]) -> Sequence[list[SendResult] | Exception]:
        # All to the queue of the first: a request is for one queue, and the first ones take turns.
        queue = parcels[0].queue
        request = service_pb2.SendMessageRequest(
            messages=[message for parcel in parcels for message in parcel.messages]
        )
        for message in request.messages:
            message.system_properties.queue_id = queue.id
        timeout_s = max(parcel.timeout_s for parcel in parcels)
        reply = await self._wire.call(queue.address, service_rpc.SEND_MESSAGE, request, timeout_s)
        entries = reply.message.entries
        if len(entries) != len(request.messages):
            text = f"{queue.broker} answered {len(request.messages)} messages with {len(entries)} results"
            raise ServerFailure(v2.INTERNAL_ERROR, text)
        stored = Stored.of_trailing(reply.trailing, len(entries)) or [None] * len(entries)
        results = [
            error_of_status(entry.status) or _result(entry, queue, where)
            for entry, where in zip(entries, stored, strict=True)
        ]
        return list(_by_parcel(parcels, results))


def _result(entry: service_pb2.SendResultEntry, asked: Queue, stored: Stored | None) -> SendResult:
    """`asked`: the queue that the broker was asked for; `stored`: where the message is, if it says so."""
    queue_id = asked.id if stored is None else stored.queue_id
    return SendResult(
        message_id=entry.message_id,
        offset_message_id=None if stored is None else stored.offset_message_id(asked.broker),
        topic=asked.topic,
        broker=asked.broker,
        queue_id=queue_id,
        offset=entry.offset if queue_id >= 0 else -1,
        recall_handle=entry.recall_handle or None,
        transaction_id=entry.transaction_id or None,
    )


def _by_parcel(
    parcels: list[Parcel], results: list[SendResult | ServerError]
) -> Iterator[list[SendResult] | Exception]:
    """Half a request is never stored: a parcel with a failed message has failed."""
    rest = iter(results)
    for parcel in parcels:
        share = list(islice(rest, parcel.count))
        failure = next((result for result in share if isinstance(result, ServerError)), None)
        yield failure or [result for result in share if isinstance(result, SendResult)]
