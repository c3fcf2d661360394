"""One PullMessage, and where it may begin: a queue read by offset, without leases."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta

from kourou.errors import check_status
from kourou.filters import Filter, wire_form
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.received import ReceivedMessage
from kourou.route import Queue
from kourou.wire import REQUEST_TIMEOUT_S, Wire


@dataclass(frozen=True, slots=True)
class Pull:
    group: str
    queue: Queue
    wanted: Filter
    offset: int
    max_messages: int
    wait_s: float


async def pull(wire: Wire, asked: Pull) -> tuple[list[ReceivedMessage], int]:
    """-> the messages, none when nothing came within the waiting time, and the offset to go on at."""
    queue = asked.queue
    request = service_pb2.PullMessageRequest(
        group=v2.Resource(name=asked.group),
        message_queue=queue.wire,
        offset=asked.offset,
        batch_size=asked.max_messages,
        filter_expression=wire_form(asked.wanted),
        long_polling_timeout=timedelta(seconds=asked.wait_s),
    )
    messages, next_offset = list[ReceivedMessage](), asked.offset
    stream = wire.stream(queue.address, service_rpc.PULL_MESSAGE, request, asked.wait_s + REQUEST_TIMEOUT_S)
    async with aclosing(stream):
        async for answer in stream:
            if answer.HasField("message"):
                messages.append(ReceivedMessage(answer.message, queue.broker, queue.address))
            elif answer.HasField("next_offset"):
                next_offset = answer.next_offset
            elif answer.status.code != v2.MESSAGE_NOT_FOUND:
                check_status(answer.status)
    return messages, next_offset


async def first_offset(wire: Wire, queue: Queue) -> int:
    """Of the oldest message that is kept."""
    return await _query(wire, queue, v2.BEGINNING)


async def end_offset(wire: Wire, queue: Queue) -> int:
    """Of the next message that is sent."""
    return await _query(wire, queue, v2.END)


async def offset_at(wire: Wire, queue: Queue, time: datetime) -> int:
    """Of the first message stored at that time or later; the end if there is none."""
    return await _query(wire, queue, v2.TIMESTAMP, time)


async def _query(wire: Wire, queue: Queue, policy: v2.QueryOffsetPolicy, time: datetime | None = None) -> int:
    request = service_pb2.QueryOffsetRequest(message_queue=queue.wire, query_offset_policy=policy, timestamp=time)
    return (await wire.call(queue.address, service_rpc.QUERY_OFFSET, request)).message.offset
