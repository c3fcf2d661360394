"""SQL filters over properties, end to end: every kind of consumer, and the command."""

import asyncio
from pathlib import Path

import pytest

from kourou import (
    AsyncProducer,
    AsyncPushConsumer,
    AsyncSimpleConsumer,
    Broadcasting,
    InvalidRequest,
    Message,
    ReceivedMessage,
    Sql,
)
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually

PRICES = range(60)
WANTED = Sql("price BETWEEN 10 AND 19 AND region IN ('eu', 'us') OR TAGS = 'gift' -- by 'region'")
FAULT = r"line 1, column 9 \(position 8\): the expression ends; expected: a property"


def _offered(topic: str) -> list[Message]:
    """Prices from several regions, and one gift that has none."""
    regions = ("eu", "us", "asia")
    return [
        Message(topic, b"%d" % price, properties={"price": str(price), "region": regions[price % 3]})
        for price in PRICES
    ] + [Message(topic, b"gift", tag="gift")]


CHOSEN = {b"%d" % price for price in range(10, 20) if price % 3 < 2} | {b"gift"}


async def _offer(cluster: Cluster, topic: str) -> None:
    async with AsyncProducer(cluster.namesrv) as producer:
        await producer.send_many(_offered(topic))


async def test_a_simple_consumer_receives_what_its_condition_is_true_of(
    cluster: Cluster, operator: Operator, name: str
) -> None:
    await operator.create_topic(name)
    await operator.create_group(name)
    await _offer(cluster, name)
    got = list[bytes]()
    async with AsyncSimpleConsumer(name, {name: WANTED}, cluster.namesrv) as consumer:
        while messages := await consumer.receive(wait_s=2):
            got += [message.body for message in messages]
            await consumer.ack(messages)
    assert sorted(got) == sorted(CHOSEN)
    await eventually(lambda: _no_lag(operator, name, name), what="what was left out is settled, too")


async def test_push_and_broadcasting_consumers_hear_what_their_condition_is_true_of(
    cluster: Cluster, operator: Operator, name: str, tmp_path: Path
) -> None:
    await operator.create_topic(name)
    pushed, broadcast = f"{name}-push", f"{name}-broadcast"
    for group in (pushed, broadcast):
        await operator.create_group(group)
    heard: dict[str, list[bytes]] = {pushed: [], broadcast: []}

    def consumer(group: str, broadcasting: Broadcasting | None = None) -> AsyncPushConsumer:
        async def listen(message: ReceivedMessage) -> None:
            heard[group].append(message.body)

        return AsyncPushConsumer(group, {name: WANTED}, listen, cluster.namesrv, broadcasting=broadcasting)

    async with consumer(pushed), consumer(broadcast, Broadcasting(tmp_path / "offsets.json", "first")):
        await _offer(cluster, name)
        await eventually(lambda: all(set(bodies) == CHOSEN for bodies in heard.values()))
        await eventually(lambda: _no_lag(operator, pushed, name))
        await asyncio.sleep(0.2)  # nothing else may come
    assert all(sorted(bodies) == sorted(CHOSEN) for bodies in heard.values())


async def test_a_faulty_condition_is_told_with_its_place(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    await operator.create_group(name)
    async with AsyncSimpleConsumer(name, {name: Sql("price > ")}, cluster.namesrv) as consumer:
        with pytest.raises(InvalidRequest, match=FAULT):
            await consumer.receive(wait_s=1)
        await consumer.subscribe(name, Sql("price > 57"))
        await _offer(cluster, name)
        got = set[bytes]()
        while len(got) < 2:
            messages = await consumer.receive(wait_s=5)
            got |= {message.body for message in messages}
            await consumer.ack(messages)
        assert got == {b"58", b"59"}
    push = AsyncPushConsumer(name, {name: Sql("price > ")}, lambda _message: None, cluster.namesrv)
    with pytest.raises(InvalidRequest, match=FAULT):
        await push.start()
    await push.close()


def test_the_command_filters_by_sql(cluster: Cluster, name: str) -> None:
    cluster.kourou("topic", "create", name, "--queues", "1")
    cluster.kourou("group", "create", name)
    for price, region in ((5, "eu"), (6, "eu"), (7, "us")):
        cluster.kourou(
            "send", name, f"{price} in {region}", "--property", f"price={price}", "--property", f"r={region}"
        )
    received = cluster.kourou("receive", name, "--group", name, "--count", "1", "--sql", "price > 5 AND r = 'eu'")
    assert received.stdout.splitlines() == ["6 in eu"]
    failed = cluster.kourou("receive", name, "--group", name, "--count", "1", "--sql", "price > ", code=1)
    assert "line 1, column 9 (position 8): the expression ends" in failed.stderr


async def _no_lag(operator: Operator, group: str, topic: str) -> bool:
    return await operator.lag(group, topic) == 0
