"""A broker with a topic of type LITE and a lite group, and the calls of lite clients."""

from collections.abc import Sequence
from typing import Any

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.state.lite import LiteTopics
from tests.unit.broker.alone import Broker, Message, message, resource

Code = definition_pb2.Code
PARTIAL_ADD, PARTIAL_REMOVE = definition_pb2.PARTIAL_ADD, definition_pb2.PARTIAL_REMOVE
COMPLETE_ADD, COMPLETE_REMOVE = definition_pb2.COMPLETE_ADD, definition_pb2.COMPLETE_REMOVE


async def lite_broker(
    *, topic: dict[str, Any] | None = None, lite: dict[str, Any] | None = None, **fields: Any
) -> Broker:
    """Its topic `orders` is of type LITE, and the group `team` reads its lite topics."""
    group = fields.pop("group", {})
    broker = Broker(**fields)
    await broker.shard.start()
    await broker.put_topic("orders", 1, type=definition_pb2.LITE, **(topic or {}))
    await broker.put_group("team", lite=record_pb2.LiteGroup(topic=resource("orders"), **(lite or {})), **group)
    return broker


def lite(id_: str, name: str = "", **fields: Any) -> Message:
    """A message for a lite topic, whose name is what its id begins with if not told otherwise."""
    return message(id_=id_, lite_topic=name or id_[0], message_type=definition_pb2.LITE, **fields)


async def send(broker: Broker, sent: str) -> None:
    """One call for each of the ids."""
    for id_ in sent.split():
        answer = await broker.send(lite(id_))
        assert answer.status.code == Code.OK, answer.status


async def sync(
    broker: Broker,
    client: str,
    action: int,
    names: str | Sequence[str],
    group: str = "team",
    topic: str = "orders",
    start: definition_pb2.OffsetOption | None = None,
) -> int:
    """-> the code. names: separated by spaces, or a list."""
    request = service_pb2.SyncLiteSubscriptionRequest(
        action=action,  # type: ignore[arg-type]
        topic=resource(topic),
        group=resource(group),
        lite_topic_set=names.split() if isinstance(names, str) else names,
        offset_option=start,
    )
    answer = await broker.doors.call(service_rpc.SYNC_LITE_SUBSCRIPTION, request, {"x-mq-client-id": client})
    return answer.status.code


async def subscribe(broker: Broker, client: str, names: str | Sequence[str], **fields: Any) -> None:
    for name in names.split() if isinstance(names, str) else names:
        assert await sync(broker, client, PARTIAL_ADD, [name], **fields) == Code.OK


def lite_topics(broker: Broker, topic: str = "orders") -> LiteTopics:
    known = next(each for each in broker.core.state.topics.values() if each.name.name == topic)
    assert known.lite is not None
    return known.lite


def names(broker: Broker, topic: str = "orders") -> str:
    return " ".join(sorted(lite_topics(broker, topic).by_name))
