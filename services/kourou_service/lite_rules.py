"""What holds for lite topics and their groups: the same at NameServers, the admin service and brokers."""

from kourou.limits import DEFAULT_LITE_QUOTA, MAX_LITE_QUOTA
from kourou.names import namespace_fault, topic_fault
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_service.refusal import Refused

LITE_CONSUMERS = frozenset((definition_pb2.LITE_PUSH_CONSUMER, definition_pb2.LITE_SIMPLE_CONSUMER))
MIN_EXPIRATION_MINUTES = 15
MAX_EXPIRATION_MINUTES = 30 * 24 * 60


def check_expiration(topic: record_pb2.Topic) -> None:
    """Raises Refused if the topic cannot let lite topics go after that time."""
    minutes = topic.lite_expiration_minutes
    if minutes and topic.type != definition_pb2.LITE:
        raise _bad("only a topic of type LITE has lite topics that expire")
    if minutes and not MIN_EXPIRATION_MINUTES <= minutes <= MAX_EXPIRATION_MINUTES:
        raise _bad(
            f"lite topics that expire after {minutes} minutes; {MIN_EXPIRATION_MINUTES} to {MAX_EXPIRATION_MINUTES} "
            "can be, or 0 for never"
        )


def check_lite_group(lite: record_pb2.LiteGroup) -> None:
    """Raises Refused with what is wrong with it."""
    if fault := topic_fault(lite.topic.name) or namespace_fault(lite.topic.resource_namespace):
        raise _bad(f"a lite group needs the topic that its members read: {fault}")
    if lite.subscription_quota > MAX_LITE_QUOTA:
        raise _bad(
            f"{lite.subscription_quota} lite topics for one client; 1 to {MAX_LITE_QUOTA} can be, or 0 for "
            f"{DEFAULT_LITE_QUOTA}"
        )


def subscription_quota(lite: record_pb2.LiteGroup) -> int:
    """How many lite topics one client of the group may subscribe to."""
    return lite.subscription_quota or DEFAULT_LITE_QUOTA


def _bad(message: str) -> Refused:
    return Refused(definition_pb2.BAD_REQUEST, message)
