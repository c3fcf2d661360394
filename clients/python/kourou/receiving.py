"""One ReceiveMessage: a long poll of one queue, or of a whole broker when its id is -1."""

from __future__ import annotations

import secrets
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta

from kourou.errors import check_status
from kourou.filters import Filter, wire_form
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.received import ReceivedMessage
from kourou.route import Queue
from kourou.wire import REQUEST_TIMEOUT_S, Wire


@dataclass(frozen=True, slots=True)
class Poll:
    group: str
    queue: Queue
    wanted: Filter
    max_messages: int
    wait_s: float
    invisible_duration_s: float | None
    """How long the messages stay hidden from others; None: as long as this client lives."""


def new_attempt_id() -> str:
    """A poll whose answer was lost is repeated with the same one, and brings the same messages."""
    return secrets.token_hex(8)


async def receive(wire: Wire, poll: Poll, attempt_id: str) -> list[ReceivedMessage]:
    """Empty when nothing came within the waiting time."""
    request = service_pb2.ReceiveMessageRequest(
        group=v2.Resource(name=poll.group),
        message_queue=poll.queue.wire,
        filter_expression=wire_form(poll.wanted),
        batch_size=poll.max_messages,
        auto_renew=poll.invisible_duration_s is None,
        long_polling_timeout=timedelta(seconds=poll.wait_s),
        attempt_id=attempt_id,
    )
    if poll.invisible_duration_s is not None:
        request.invisible_duration.FromTimedelta(timedelta(seconds=poll.invisible_duration_s))
    queue, messages = poll.queue, list[ReceivedMessage]()
    stream = wire.stream(queue.address, service_rpc.RECEIVE_MESSAGE, request, poll.wait_s + REQUEST_TIMEOUT_S)
    async with aclosing(stream):
        async for answer in stream:
            if answer.HasField("message"):
                messages.append(ReceivedMessage(answer.message, queue.broker, queue.address))
            elif answer.HasField("status") and answer.status.code != v2.MESSAGE_NOT_FOUND:
                check_status(answer.status)
    return messages
