"""Delayed messages against real processes: on time, once, through kill -9; and taken back from wherever one asks."""

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from kourou import AsyncProducer, AsyncSimpleConsumer, Message, NotFound, ReceivedMessage, SendResult
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_service.recall_handle import RecallHandle
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually


def after(topic: str, delay_s: float, body: bytes) -> Message:
    return Message(topic, body, delivery_time=datetime.now(UTC) + timedelta(seconds=delay_s))


async def receive(cluster: Cluster, topic: str, count: int, within_s: float) -> list[tuple[ReceivedMessage, datetime]]:
    """Messages with the time when they came; they are acknowledged."""
    came: list[tuple[ReceivedMessage, datetime]] = []
    async with AsyncSimpleConsumer(topic, {topic: "*"}, cluster.namesrv) as consumer, asyncio.timeout(within_s):
        while len({message.message_id for message, _ in came}) < count:
            messages = await consumer.receive(wait_s=1)
            came += [(message, datetime.now(UTC)) for message in messages]
            if messages:
                await consumer.ack(messages)
    return came


async def pending(cluster: Cluster, operator: Operator, topic: str) -> int:
    described = [await operator.describe(address) for address in cluster.broker_addresses]
    return sum(held.delayed for each in described for held in each.held_messages if held.topic.name == topic)


async def stored(cluster: Cluster, operator: Operator, topic: str) -> int:
    """How many messages its queues have had, on all brokers."""
    request = broker_pb2.DescribeQueuesRequest()
    answers = [await operator.ask(address, broker_rpc.DESCRIBE_QUEUES, request) for address in cluster.broker_addresses]
    return sum(queue.next_offset for answer in answers for queue in answer.queues if queue.topic.name == topic)


async def test_they_come_on_time(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name, message_type=v2.DELAY)
    await operator.create_group(name)
    async with AsyncProducer(cluster.namesrv) as producer:
        sent = await producer.send_many([after(name, 1 + number / 10, b"%d" % number) for number in range(20)])
    assert all(result.recall_handle for result in sent)
    came = await receive(cluster, name, 20, within_s=20)
    assert sorted(int(message.body) for message, _ in came) == list(range(20))
    for message, at in came:
        assert message.delivery_time is not None
        # Much wider than it is: the machine of a test is busy with others.
        assert timedelta(0) <= at - message.delivery_time < timedelta(seconds=2), message


async def test_none_is_lost_or_comes_twice_when_a_broker_is_killed(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(namesrvs=1, brokers=2)
    victim = cluster.broker("broker-a")
    async with Operator(cluster) as operator:
        await operator.create_topic("later", message_type=v2.DELAY)
        await operator.create_group("later")
        async with AsyncProducer(cluster.namesrv) as producer:
            sent = await producer.send_many(
                [after("later", 1 + number * 0.02, b"%d" % number) for number in range(400)]
            )
        assert {result.broker for result in sent} == {"broker-a", "broker-b"}
        for _ in range(3):
            left = await pending(cluster, operator, "later")
            await eventually(lambda left=left: _less(cluster, operator, left), 20)
            await asyncio.to_thread(victim.kill)
            await asyncio.to_thread(victim.start)
            await asyncio.to_thread(cluster.wait_until_registered, victim)
        came = await receive(cluster, "later", 400, within_s=60)
        assert {message.message_id for message, _ in came} == {result.message_id for result in sent}
        assert all(message.delivery_time is not None and message.delivery_time <= at for message, at in came)
        assert await pending(cluster, operator, "later") == 0
        assert await stored(cluster, operator, "later") == 400, "a message entered a queue twice, or never"


async def _less(cluster: Cluster, operator: Operator, than: int) -> bool:
    return await pending(cluster, operator, "later") < than or than == 0


async def test_a_recall_from_anywhere(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name, message_type=v2.DELAY)
    async with AsyncProducer(cluster.namesrv) as producer:
        sent = await producer.send_many([after(name, 3600, b"x") for _ in range(3)])
        assert await pending(cluster, operator, name) == 3
        # The library asks a NameServer, as Java's and Python's official clients do.
        assert await producer.recall(name, _handle(sent[0])) == sent[0].message_id
        with pytest.raises(NotFound, match="not pending"):
            await producer.recall(name, _handle(sent[0]))
    owner = RecallHandle.parse(_handle(sent[1])).broker
    other = next(broker for broker in cluster.brokers if broker.name != owner)
    request = service_pb2.RecallMessageRequest(topic=v2.Resource(name=name), recall_handle=_handle(sent[1]))
    answer = await operator.ask(other.address, service_rpc.RECALL_MESSAGE, request)
    assert answer.message_id == sent[1].message_id
    out = await asyncio.to_thread(cluster.kourou, "message", "recall", name, _handle(sent[2]))
    assert out.stdout == f"recalled: id {sent[2].message_id}\n"
    assert await pending(cluster, operator, name) == 0


def _handle(result: SendResult) -> str:
    assert result.recall_handle
    return result.recall_handle


async def test_the_command(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name, message_type=v2.DELAY)
    await operator.create_group(name)
    said = await asyncio.to_thread(cluster.kourou, "send", name, "soon", "--delay", "500ms")
    assert re.search(r"recall handle \S+", said.stdout)
    [(message, _)] = await receive(cluster, name, 1, within_s=10)
    assert message.body == b"soon"
    refused = await asyncio.to_thread(cluster.kourou, "send", name, "never", "--delay", "50d", code=1)
    assert "40 days" in refused.stderr
