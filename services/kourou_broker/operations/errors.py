"""Refusals that several operations share."""

from kourou.names import how_topic_comes
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.state.definitions import Name
from kourou_service.refusal import Refused


def topic_not_found(name: Name) -> Refused:
    return Refused(definition_pb2.TOPIC_NOT_FOUND, f"no topic {name} on this broker; {how_topic_comes(name.name)}")


def group_not_found(name: Name) -> Refused:
    return Refused(
        definition_pb2.CONSUMER_GROUP_NOT_FOUND,
        f"consumer group {name} does not exist; create it with: kourou group create {name}",
    )
