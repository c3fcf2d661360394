"""Receipt handles: which lease a delivered message is held by.

A handle names the lease (by the broker's incarnation and a number) and the message, and is good while that lease holds
that message in the state. So it can never settle another message, on this broker or another, before or after a restart.
"""

import base64
import binascii
import struct
from collections.abc import Sequence
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


class LeaseName(NamedTuple):
    """A lease of one group on one topic, by what never names another one."""

    queue: int
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
    if (receipt.group, receipt.topic) != (group_id, topic_id):
        raise expired()
    name = LeaseName(receipt.queue, receipt.incarnation, receipt.number)
    progress, lease = find(state, group_id, topic_id, name, [receipt.offset])
    return progress, receipt.offset, lease


def find(state: State, group_id: int, topic_id: int, name: LeaseName, offsets: Sequence[int]) -> tuple[Progress, Lease]:
    """The lease of that name, if it holds a message at one of the offsets. Raises Refused when it does not."""
    progress = state.progress.get((group_id, topic_id, name.queue))
    if progress is not None:
        for offset in offsets:
            lease = progress.pending.get(offset)
            if lease is not None and (lease.incarnation, lease.number) == (name.incarnation, name.number):
                if lease.holds_back:
                    break
                return progress, lease
    raise expired()


def expired() -> Refused:
    return Refused(
        definition_pb2.INVALID_RECEIPT_HANDLE,
        "the receipt handle has expired: the message was settled, or delivered again under another handle",
    )
