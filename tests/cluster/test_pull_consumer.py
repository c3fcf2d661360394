"""Pull consumers: what they read by offset, from where, and what they commit, over two brokers."""

import asyncio
from datetime import UTC, datetime

import pytest

from kourou import (
    AsyncProducer,
    AsyncPullConsumer,
    InvalidArgument,
    InvalidRequest,
    Message,
    PullConsumer,
    Queue,
    ReceivedMessage,
)
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator

QUEUES = 2
WAIT_S = 10.0


async def send(cluster: Cluster, topic: str, *bodies: bytes, tag: str | None = None) -> list[tuple[str, int, int]]:
    """-> where they are."""
    async with AsyncProducer(cluster.namesrv) as producer:
        results = await producer.send_many([Message(topic, body, tag=tag) for body in bodies])
    return [(result.broker, result.queue_id, result.offset) for result in results]


async def pull_all(consumer: AsyncPullConsumer, topic: str) -> list[ReceivedMessage]:
    """What the queues hold now."""
    messages: list[ReceivedMessage] = []
    for queue in await consumer.queues(topic):
        while some := await consumer.pull(queue, 3, wait_s=0):
            messages += some
    return messages


async def test_each_message_once_and_on_from_what_was_committed(
    cluster: Cluster, operator: Operator, name: str
) -> None:
    await operator.create_topic(name, QUEUES)
    await operator.create_group(name)
    sent = [f"{number}".encode() for number in range(20)]
    await send(cluster, name, *sent)
    async with AsyncPullConsumer(name, {name: "*"}, cluster.namesrv) as consumer:
        queues = await consumer.queues(name)
        assert len(queues) == 2 * QUEUES
        assert [consumer.position(queue) for queue in queues] == [None] * len(queues)
        assert [await consumer.committed(queue) for queue in queues] == [None] * len(queues)
        assert sorted(message.body for message in await pull_all(consumer, name)) == sorted(sent)
        for queue in queues:
            await consumer.commit(queue)
            assert await consumer.committed(queue) == consumer.position(queue) == await consumer.offset(queue, "end")
    await send(cluster, name, b"late")
    async with AsyncPullConsumer(name, {name: "*"}, cluster.namesrv) as successor:
        assert [message.body for message in await pull_all(successor, name)] == [b"late"]
    async with AsyncPullConsumer(name, {name: "*"}, cluster.namesrv) as again:  # nothing more was committed
        assert [message.body for message in await pull_all(again, name)] == [b"late"]


async def test_from_a_place_and_from_a_time(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name, queues=1, brokers=["broker-a"])
    await operator.create_group(name)
    await send(cluster, name, b"0", b"1", b"2", tag="early")
    await asyncio.sleep(0.02)  # times are of a millisecond
    between = datetime.now(UTC)
    await asyncio.sleep(0.02)
    await send(cluster, name, b"3", b"4", tag="late")
    async with AsyncPullConsumer(name, {name: "late"}, cluster.namesrv) as consumer:
        (queue,) = await consumer.queues(name)
        offsets = [await consumer.offset(queue, where) for where in ("first", "end", between, datetime.now(UTC))]
        assert offsets == [0, 5, 3, 5]
        assert [message.body for message in await consumer.pull(queue, wait_s=0)] == [b"3", b"4"]
        assert consumer.position(queue) == 5
        consumer.seek(queue, 4)
        assert [message.offset for message in await consumer.pull(queue, wait_s=0)] == [4]
        waiting = asyncio.create_task(consumer.pull(queue, wait_s=WAIT_S))
        await send(cluster, name, b"5", tag="early")
        await send(cluster, name, b"6", tag="late")
        assert [message.body for message in await waiting] == [b"6"]
        consumer.seek(queue, 8)
        with pytest.raises(InvalidRequest, match="offset 8 is outside of what the queue holds: 0 to 7"):
            await consumer.pull(queue, wait_s=0)
        with pytest.raises(InvalidArgument, match="not among the subscriptions"):
            await consumer.queues("another")
        with pytest.raises(InvalidArgument, match="no time zone"):
            await consumer.offset(queue, datetime(2024, 1, 1))


async def test_the_blocking_one(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name, queues=1, brokers=["broker-b"])
    await operator.create_group(name)
    places = await send(cluster, name, b"0", b"1", b"2")

    def read() -> tuple[Queue, list[bytes]]:
        with PullConsumer(name, {name: "*"}, cluster.namesrv) as consumer:
            (queue,) = consumer.queues(name)
            consumer.seek(queue, consumer.offset(queue, "first") + 1)
            bodies = [message.body for message in consumer.pull(queue, wait_s=0)]
            consumer.commit(queue)
            assert consumer.committed(queue) == consumer.position(queue) == 3
            return queue, bodies

    queue, bodies = await asyncio.to_thread(read)
    assert (queue.broker, queue.id) == places[0][:2]
    assert bodies == [b"1", b"2"]
