"""What a legal consumer group is: the same at the admin service and at a broker."""

import math

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_service.lite_rules import check_lite_group
from kourou_service.refusal import Refused
from kourou_service.wire_times import milliseconds

MAX_ATTEMPTS = 1000
MAX_BACKOFF_MS = 12 * 3_600_000


def check_group(group: record_pb2.Group) -> None:
    """All but its name. Raises Refused with what is wrong."""
    if not 1 <= group.retry.max_attempts <= MAX_ATTEMPTS:
        raise _bad(f"{group.retry.max_attempts} attempts; 1 to {MAX_ATTEMPTS} can be")
    if group.order not in _ORDERS:
        raise _bad("the order has to be concurrent or fifo")
    if group.assignment not in _ASSIGNMENTS:
        raise _bad("the assignment has to be exclusive or shared")
    if group.start not in _STARTS:
        raise _bad("a group starts at the first message, at the last one or at a time")
    if (group.start == record_pb2.START_TIME) != bool(group.start_ms):
        raise _bad("a group has a time to start at if it starts at a time, and only then")
    _check_backoff(group.retry)
    if group.HasField("lite"):
        check_lite_group(group.lite)
        if group.start != record_pb2.START_FIRST:
            raise _bad("a lite group starts at the first message of each lite topic; a subscription may say otherwise")


def _check_backoff(retry: definition_pb2.RetryPolicy) -> None:
    if retry.HasField("exponential_backoff"):
        curve = retry.exponential_backoff
        if not 0 < curve.multiplier < math.inf:
            raise _bad(f"a backoff cannot be multiplied by {curve.multiplier}")
        waits_ms = [milliseconds(curve.initial), milliseconds(curve.max)]
        if waits_ms[0] > waits_ms[1]:
            raise _bad(f"a backoff cannot begin with {waits_ms[0]} ms and have at most {waits_ms[1]} ms")
    else:
        waits_ms = [milliseconds(step) for step in retry.customized_backoff.next]
    if len(waits_ms) > MAX_ATTEMPTS:
        raise _bad(f"a backoff of {len(waits_ms)} steps; {MAX_ATTEMPTS} can be")
    for wait_ms in waits_ms:
        if not 0 <= wait_ms <= MAX_BACKOFF_MS:
            raise _bad(f"a backoff of {wait_ms} ms; 0 to {MAX_BACKOFF_MS} ms can be")


def _bad(message: str) -> Refused:
    return Refused(definition_pb2.BAD_REQUEST, message)


_ORDERS = frozenset((record_pb2.ORDER_CONCURRENT, record_pb2.ORDER_FIFO))
_ASSIGNMENTS = frozenset((record_pb2.ASSIGNMENT_EXCLUSIVE, record_pb2.ASSIGNMENT_SHARED))
_STARTS = frozenset((record_pb2.START_FIRST, record_pb2.START_LAST, record_pb2.START_TIME))
