"""Refusals that several operations share."""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_service.refusal import Refused


def topic_not_found(name: object) -> Refused:
    return Refused(
        definition_pb2.TOPIC_NOT_FOUND,
        f"topic {name} does not exist on this broker; create it with: kourou topic create {name}",
    )


def group_not_found(name: object) -> Refused:
    return Refused(
        definition_pb2.CONSUMER_GROUP_NOT_FOUND,
        f"consumer group {name} does not exist; create it with: kourou group create {name}",
    )
