"""Clients with a namespace: it is in every topic and group that they name, and in none without one."""

from collections.abc import Iterator
from typing import Any

import pytest

from kourou import (
    AsyncProducer,
    AsyncPushConsumer,
    AsyncSimpleConsumer,
    InvalidArgument,
    Message,
    ReceivedMessage,
    TransactionResolution,
)
from kourou.namespaces import put_into
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2
from tests.unit.client.fake import Cluster, cluster, received, until


def resources(message: Any) -> Iterator[v2.Resource]:
    """By another way than the library's."""
    if message.DESCRIPTOR.name == "Resource":
        yield message
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            value = getattr(message, field.name)
            parts = value if field.is_repeated else [value] if message.HasField(field.name) else []
            for part in parts:
                yield from resources(part)


def asked(c: Cluster) -> list[Any]:
    [broker] = c.brokers
    requests: list[Any] = [*c.name_servers[0].queries, *broker.sends, *broker.receives, *broker.acks, *broker.changes]
    requests += [*broker.settings, *broker.heartbeats, *broker.goodbyes, *broker.ends, *broker.dead_letters]
    return requests + c.name_servers[0].recalls


async def use_everything(c: Cluster, **options: Any) -> None:
    [broker] = c.brokers
    broker.assign = lambda topic: [broker.queue(topic, -1)]
    broker.settings_answer.subscription.fifo = True
    broker.settings_answer.backoff_policy.max_attempts = 1

    async def check(message: ReceivedMessage) -> TransactionResolution:
        return TransactionResolution.COMMIT

    async def listen(message: ReceivedMessage) -> bool:
        return message.body == b"good"

    async with AsyncProducer(c.namesrv, group="makers", transaction_checker=check, **options) as producer:
        await producer.send(Message("t", b"x"))
        await producer.send(Message("t", b"x", message_group="g", properties={"k": "v"}))
        async with producer.transaction(Message("t", b"x")):
            pass
        await producer.recall("t", "handle")
        await until(lambda: broker.settings)
    async with AsyncPushConsumer("readers", {"t": "*"}, listen, c.namesrv, **options):
        broker.ready["t"] += [received("t", b"good", "1"), received("t", b"bad", "2")]
        broker.ready["t"].append(received("t", b"bad", "3", message_group="g"))
        await until(lambda: broker.acks and broker.changes and broker.dead_letters)
    async with AsyncSimpleConsumer("readers", {"t": "*"}, c.namesrv, **options) as consumer:
        await consumer.receive(wait_s=0)
        await until(lambda: broker.settings[-1].client_type == v2.SIMPLE_CONSUMER)


@pytest.mark.parametrize("namespace", ["", "team"])
async def test_everything_that_a_client_names_is_of_its_namespace(namespace: str):
    async with cluster() as c:
        await use_everything(c, **({"namespace": namespace} if namespace else {}))
        requests = asked(c)
        assert len({type(request).__name__ for request in requests}) == 11
        for request in requests:
            named = list(resources(request))
            if not isinstance(request, service_pb2.HeartbeatRequest | service_pb2.NotifyClientTerminationRequest):
                assert named, request
            assert {resource.resource_namespace for resource in named} <= {namespace}, request
        headers = c.brokers[0].headers[0]
        assert headers.get("x-mq-namespace") == (namespace or None)


def test_properties_that_look_like_names_are_left_alone():
    message = v2.Message(topic=v2.Resource(name="t"), user_properties={"name": "x", "topic": "y"}, body=b"b")
    request = service_pb2.SendMessageRequest(messages=[message, message])
    put_into("team", request)
    assert [sent.topic.resource_namespace for sent in request.messages] == ["team", "team"]
    assert dict(request.messages[0].user_properties) == {"name": "x", "topic": "y"}


def test_a_namespace_that_is_none():
    with pytest.raises(InvalidArgument, match="namespace 'a/b'"):
        AsyncProducer("127.0.0.1:1", namespace="a/b")
