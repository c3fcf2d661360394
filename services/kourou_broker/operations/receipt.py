"""Receipt handles: which lease a delivered message is held by.

A handle names the lease (by the broker's incarnation and a number) and the message, and is good while that lease holds
that message in the state. So it can never settle another message, on this broker or another, before or after a restart.
"""

import base64
import binascii
import struct
from typing import NamedTuple

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.state import State
from kourou_broker.state.progress import Progress
from kourou_broker.state.records import Lease
from kourou_service.refusal import Refused

_LAYOUT = struct.Struct("<IIIQQQ")


class Receipt(NamedTuple):
    group: int
    topic: int
    queue: int
    offset: int
    incarnation: int
    number: int


def encode(progress: tuple[int, int, int], offset: int, lease: Lease) -> str:
    """progress is the key: group id, topic id, queue."""
    data = _LAYOUT.pack(*progress, offset, lease.incarnation, lease.number)
    return base64.urlsafe_b64encode(data).decode()


def decode(handle: str) -> Receipt:
    try:
        return Receipt._make(_LAYOUT.unpack(base64.b64decode(handle.encode(), altchars=b"-_", validate=True)))
    except (ValueError, binascii.Error, struct.error, UnicodeEncodeError):
        raise Refused(definition_pb2.INVALID_RECEIPT_HANDLE, "this is no receipt handle of this broker") from None


def resolve(state: State, handle: str, group_id: int, topic_id: int) -> tuple[Progress, int, Lease]:
    """-> the progress, offset and lease that the handle stands for. Raises Refused when it is foreign or expired."""
    receipt = decode(handle)
    progress = state.progress.get((receipt.group, receipt.topic, receipt.queue))
    lease = progress.pending.get(receipt.offset) if progress is not None else None
    if (
        progress is None
        or lease is None
        or (lease.incarnation, lease.number) != (receipt.incarnation, receipt.number)
        or lease.holds_back
        or (receipt.group, receipt.topic) != (group_id, topic_id)
    ):
        raise Refused(
            definition_pb2.INVALID_RECEIPT_HANDLE,
            "the receipt handle has expired: the message was settled, or delivered again under another handle",
        )
    return progress, receipt.offset, lease
