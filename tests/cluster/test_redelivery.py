"""Messages that were not settled come again, counted, and end as dead letters."""

import asyncio
from collections.abc import Callable

import pytest

from kourou import (
    AsyncProducer,
    AsyncPushConsumer,
    AsyncSimpleConsumer,
    InvalidReceiptHandle,
    Message,
    ReceivedMessage,
    TopicNotFound,
)
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually


async def send(cluster: Cluster, *messages: Message) -> list[str]:
    async with AsyncProducer(cluster.namesrv) as producer:
        return [result.message_id for result in await producer.send_many(messages)]


async def test_it_comes_again_after_the_invisible_time(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    await operator.create_group(name)
    [sent] = await send(cluster, Message(name, b"x"))
    async with AsyncSimpleConsumer(name, {name: "*"}, cluster.namesrv) as consumer:
        [first] = await consumer.receive(wait_s=5, invisible_duration_s=1.5)
        assert await consumer.receive(wait_s=0.5) == []
        [second] = await consumer.receive(wait_s=5, invisible_duration_s=30)
        assert (first.attempt, second.attempt) == (1, 2)
        assert first.message_id == second.message_id == sent
        with pytest.raises(InvalidReceiptHandle):
            await consumer.ack(first)
        # Given back at once, it comes with the next attempt; and held for longer, it stays away.
        await consumer.change_invisible_duration(second, 0)
        [third] = await consumer.receive(wait_s=5, invisible_duration_s=1)
        assert third.attempt == 3
        await consumer.change_invisible_duration(third, 30)
        assert await consumer.receive(wait_s=2) == []
        await consumer.ack(third)


async def test_a_failing_listener_and_the_dead_letters(cluster: Cluster, operator: Operator, name: str) -> None:
    group = f"{name}-group"
    await operator.create_topic(name)
    await operator.create_group(group, max_attempts=3, backoff_s=[1])
    attempts: dict[bytes, list[int]] = {b"bad": [], b"good": [], b"raises": []}

    async def listen(message: ReceivedMessage) -> bool:
        attempts[message.body].append(message.attempt)
        if message.body == b"raises":
            raise RuntimeError("as in a handler with a bug")
        return message.body == b"good"

    messages = [Message(name, body, tag="t", keys=["k"], properties={"p": "v"}) for body in attempts]
    ids = await send(cluster, *messages)
    async with AsyncPushConsumer(group, {name: "*"}, listen, cluster.namesrv):
        await eventually(lambda: attempts == {b"bad": [1, 2, 3], b"good": [1], b"raises": [1, 2, 3]}, 15)
        dead: list[ReceivedMessage] = []

        async def all_dead() -> bool:
            dead.extend(await _receive_dead(cluster, group))
            return len(dead) >= 2

        await eventually(all_dead, 15)
    assert {message.body for message in dead} == {b"bad", b"raises"}
    for message in dead:
        assert message.topic == f"%DLQ%{group}"
        assert message.dead_letter_of == (name, ids[list(attempts).index(message.body)])
        assert (message.tag, message.keys, message.properties["p"]) == ("t", ("k",), "v")
    assert attempts == {b"bad": [1, 2, 3], b"good": [1], b"raises": [1, 2, 3]}, "and not again"
    assert await operator.lag(group, name) == 0


async def _receive_dead(cluster: Cluster, group: str) -> list[ReceivedMessage]:
    """What there is now, by a reader of the same group; none while the topic has not been made by a first one."""
    async with AsyncSimpleConsumer(group, {f"%DLQ%{group}": "*"}, cluster.namesrv) as reader:
        try:
            messages = await reader.receive(wait_s=1)
        except TopicNotFound:
            return []
        if messages:
            await reader.ack(messages)
        return messages


async def test_a_long_handler_keeps_its_message(new_cluster: Callable[..., Cluster]) -> None:
    """The lease of a push consumer is renewed as long as it lives, and only then."""
    cluster = new_cluster(namesrvs=1, brokers=1, broker={"invisible_time_ms": 1000})
    done = asyncio.Event()
    heard: list[int] = []

    async def work(message: ReceivedMessage) -> None:
        heard.append(message.attempt)
        await asyncio.sleep(4)
        done.set()

    async with Operator(cluster) as operator:
        await operator.create_topic("long")
        await operator.create_group("workers", shared=True)
        await send(cluster, Message("long", b"x"))
        async with (
            AsyncPushConsumer("workers", {"long": "*"}, work, cluster.namesrv),
            AsyncPushConsumer("workers", {"long": "*"}, work, cluster.namesrv),
        ):
            await asyncio.wait_for(done.wait(), 15)
            await eventually(lambda: _no_lag(operator, "workers", "long"))
        assert heard == [1]


async def test_tags_choose(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    await operator.create_group(name)
    await send(cluster, *(Message(name, tag.encode(), tag=tag) for tag in ("a", "b", "c", "d")), Message(name, b"none"))
    got = set[bytes]()
    async with AsyncSimpleConsumer(name, {name: "a || c"}, cluster.namesrv) as consumer:
        while messages := await consumer.receive(wait_s=2):
            got.update(message.body for message in messages)
            await consumer.ack(messages)
    assert got == {b"a", b"c"}
    # What the filter left out is settled with the rest.
    await eventually(lambda: _no_lag(operator, name, name))


async def _no_lag(operator: Operator, group: str, topic: str) -> bool:
    return await operator.lag(group, topic) == 0
