"""Who may be in which group: lite consumers in the groups of lite topics, others in the other groups."""

from collections.abc import Iterable

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations.clients import Client
from kourou_broker.state.definitions import Group, Name, Topic
from kourou_broker.state.lite import LiteTopics
from kourou_service.lite_rules import LITE_CONSUMERS
from kourou_service.refusal import Refused


def check_member(group: Group, client_type: int, topics: Iterable[Name] = ()) -> None:
    """Raises Refused if a client of that type, or one that reads these topics, cannot be in the group.

    A client that has not said yet of what type it is may be of any.
    """
    lite = group.lite_topic
    if client_type != definition_pb2.CLIENT_TYPE_UNSPECIFIED and (lite is not None) != (client_type in LITE_CONSUMERS):
        kind, other = ("lite", "others") if lite is not None else ("other", "lite ones")
        raise Refused(
            definition_pb2.ILLEGAL_CONSUMER_GROUP,
            f"group {group.name} is for {kind} consumers, and not for {other}",
        )
    if lite is not None and any(topic != lite for topic in topics):
        raise Refused(definition_pb2.ILLEGAL_TOPIC, f"group {group.name} reads the lite topics of {lite}, nothing else")


def check_lite_consumer(group: Group, topic: Topic, client: Client) -> None:
    """Raises Refused unless all three are lite: the group, the topic that it reads, and the client that asks."""
    lite_topics_of(topic)
    if group.lite_topic is None:
        raise Refused(
            definition_pb2.ILLEGAL_CONSUMER_GROUP,
            f"group {group.name} is not for lite consumers; to make one: kourou group create NAME --lite {topic.name}",
        )
    check_member(group, client.type or definition_pb2.LITE_SIMPLE_CONSUMER, (topic.name,))


def lite_topics_of(topic: Topic) -> LiteTopics:
    """Raises Refused for a topic of another type."""
    if topic.lite is None:
        raise Refused(definition_pb2.ILLEGAL_TOPIC, f"topic {topic.name} is not of type LITE: it has no lite topics")
    return topic.lite
