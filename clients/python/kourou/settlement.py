"""What becomes of a delivered message: acknowledged, hidden for another while, or given up as a dead letter."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from kourou.backoff import Exponential
from kourou.coalescer import Coalescer, Limits
from kourou.errors import (
    ConnectionFailed,
    InvalidReceiptHandle,
    KourouError,
    ServerError,
    ServerFailure,
    TimeoutExceeded,
    TooManyRequests,
    error_of_status,
)
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.received import ReceivedMessage
from kourou.room import Room
from kourou.settling import Asked
from kourou.wire import Wire

_log = logging.getLogger(__name__)

MAX_ACK_COUNT = 128
MAX_UNSETTLED_COUNT = 1024
MAX_UNSETTLED_BYTES = 64 * 1024 * 1024
"""Of each broker; with more, none of its queues is polled."""
_ACK_LIMITS = Limits(max_in_flight=2, max_count=MAX_ACK_COUNT, max_bytes=MAX_ACK_COUNT)
_AGAIN = Exponential(initial_s=0.05, max_s=5.0)
_PASSES = (ConnectionFailed, TimeoutExceeded, TooManyRequests, ServerFailure)


async def acknowledge(wire: Wire, group: str, messages: Sequence[ReceivedMessage]) -> list[ServerError | None]:
    """For messages of one topic and broker, what each acknowledgement came to. Raises when the request fails."""
    request = service_pb2.AckMessageRequest(
        group=v2.Resource(name=group),
        topic=v2.Resource(name=messages[0].topic),
        entries=[
            service_pb2.AckMessageEntry(message_id=message.message_id, receipt_handle=message.receipt_handle)
            for message in messages
        ],
    )
    answer = (await wire.call(messages[0].address, service_rpc.ACK_MESSAGE, request)).message
    if len(answer.entries) != len(messages):
        text = f"{messages[0].broker} answered {len(messages)} acknowledgements with {len(answer.entries)} results"
        raise ServerFailure(v2.INTERNAL_ERROR, text)
    return [error_of_status(entry.status) for entry in answer.entries]


async def change_invisible_duration(wire: Wire, group: str, message: ReceivedMessage, duration_s: float) -> None:
    """The message is delivered again after that time; it has a new receipt handle."""
    request = service_pb2.ChangeInvisibleDurationRequest(
        group=v2.Resource(name=group),
        topic=v2.Resource(name=message.topic),
        receipt_handle=message.receipt_handle,
        invisible_duration=timedelta(seconds=duration_s),
        message_id=message.message_id,
    )
    answer = (await wire.call(message.address, service_rpc.CHANGE_INVISIBLE_DURATION, request)).message
    message.renewed(answer.receipt_handle or message.receipt_handle)


async def forward_to_dead_letters(wire: Wire, group: str, message: ReceivedMessage, max_attempts: int) -> None:
    """The message goes to the group's dead-letter topic, and is settled."""
    request = service_pb2.ForwardMessageToDeadLetterQueueRequest(
        group=v2.Resource(name=group),
        topic=v2.Resource(name=message.topic),
        receipt_handle=message.receipt_handle,
        message_id=message.message_id,
        delivery_attempt=message.attempt,
        max_delivery_attempts=max_attempts,
        lite_topic=message.lite_topic,
    )
    await wire.call(message.address, service_rpc.FORWARD_MESSAGE_TO_DEAD_LETTER_QUEUE, request)


@dataclass(frozen=True, slots=True)
class _Ack:
    message: ReceivedMessage
    count: int = 1
    size_bytes: int = 1


class Settler:
    """Settles for as long as it takes: a message that is not settled stays with this client while it lives. It goes
    through the door that the message came through."""

    def __init__(self, wire: Wire, group: str) -> None:
        self._wire = wire
        self._group = group
        self._lanes: dict[tuple[str, str], Coalescer[_Ack, None]] = {}
        self._returns: set[asyncio.Task[None]] = set()
        self._unsettled: dict[str, Room] = {}

    async def room(self, address: str) -> None:
        """Returns when the broker there may give more to settle."""
        if address in self._unsettled:
            await self._unsettled[address].wait()

    def acknowledge(self, message: ReceivedMessage) -> asyncio.Future[Any]:
        """Together with others that come while a request is under way. Done when it is settled."""
        if message.lent is not None:
            return message.lent.settling.acknowledge(message.lent, message.offset)
        key = message.topic, message.address
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Coalescer(self._acknowledge, _ACK_LIMITS)
        return self._count(message, lane.submit(_Ack(message)))

    def give_back(self, message: ReceivedMessage, delay_s: float) -> asyncio.Future[Any]:
        """To be delivered again after the delay. Done when it is settled."""
        if message.lent is not None:
            return message.lent.settling.settle(Asked(message.lent, [message.offset], after_s=delay_s))
        return self._return(message, partial(change_invisible_duration, self._wire, self._group, message, delay_s))

    def give_up(self, message: ReceivedMessage, max_attempts: int) -> asyncio.Future[Any]:
        """To the dead letters. Done when it is settled."""
        if message.lent is not None:
            return message.lent.settling.settle(Asked(message.lent, [message.offset], is_dead=True))
        return self._return(message, partial(forward_to_dead_letters, self._wire, self._group, message, max_attempts))

    async def drain(self) -> None:
        """Returns when everything is settled."""
        while self._returns:
            await asyncio.wait(self._returns)
        for lane in self._lanes.values():
            await lane.drain()

    async def close(self) -> None:
        for task in self._returns:
            task.cancel()
        for lane in self._lanes.values():
            await lane.close()

    def _return(self, message: ReceivedMessage, request: Callable[[], Awaitable[None]]) -> asyncio.Future[None]:
        task = asyncio.create_task(_until_settled(message, request))
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)
        return self._count(message, task)

    def _count(self, message: ReceivedMessage, settled: asyncio.Future[None]) -> asyncio.Future[None]:
        room = self._unsettled.get(message.address)
        if room is None:
            room = self._unsettled[message.address] = Room(MAX_UNSETTLED_COUNT, MAX_UNSETTLED_BYTES)
        room.take(1, message.size_bytes)
        settled.add_done_callback(lambda _: room.release(1, message.size_bytes))
        return settled

    async def _acknowledge(self, acks: list[_Ack]) -> Sequence[None]:
        messages = [ack.message for ack in acks]
        tries = 0
        while messages:
            tries += 1
            try:
                outcomes = await acknowledge(self._wire, self._group, messages)
            except KourouError as error:
                outcomes = [error] * len(messages)
            messages = [m for m, outcome in zip(messages, outcomes, strict=True) if _is_open(m, outcome)]
            if messages:
                await asyncio.sleep(_AGAIN.jittered_s(tries))
        return [None] * len(acks)


async def _until_settled(message: ReceivedMessage, request: Callable[[], Awaitable[None]]) -> None:
    tries = 0
    while True:
        tries += 1
        try:
            return await request()
        except KourouError as error:
            if not _is_open(message, error):
                return None
        await asyncio.sleep(_AGAIN.jittered_s(tries))


def _is_open(message: ReceivedMessage, outcome: KourouError | None) -> bool:
    """It is still to be settled, and another try may do it."""
    if outcome is None:
        return False
    if isinstance(outcome, _PASSES):
        _log.debug("%s is not settled yet: %s", message, outcome)
        return True
    level = logging.DEBUG if isinstance(outcome, InvalidReceiptHandle) else logging.WARNING
    _log.log(level, "%s was not settled: %s", message, outcome)
    return False
