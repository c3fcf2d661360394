"""What an operator does with the `kourou` command: look, take a broker off, move a group's progress, find messages."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from kourou import AsyncProducer, AsyncPushConsumer, AsyncSimpleConsumer, Message, ReceivedMessage, SendResult
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from tests.cluster.cluster import BrokerNode, Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually

QUEUES = 2


class Shell:
    """The command beside running clients."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def run(self, *args: str, code: int = 0) -> str:
        done = await asyncio.to_thread(self._cluster.kourou, *args, code=code)
        return done.stderr if code else done.stdout

    async def rows(self, *args: str) -> list[dict[str, Any]]:
        return json.loads(await self.run(*args, "--json"))


@pytest.fixture
def shell(cluster: Cluster) -> Shell:
    return Shell(cluster)


async def send(cluster: Cluster, topic: str, *bodies: str, key: str | None = None) -> list[SendResult]:
    async with AsyncProducer(cluster.namesrv) as producer:
        return [
            await producer.send(Message(topic, body.encode(), keys=[f"{key}-{body}"] if key else ())) for body in bodies
        ]


async def test_a_broker_is_taken_off_and_put_on_again(
    cluster: Cluster, operator: Operator, shell: Shell, name: str
) -> None:
    await operator.create_topic(name, QUEUES)
    await operator.create_group(name)
    async with AsyncExitStack() as stack:
        # Both learn of a change at once, not with their next pull of the route.
        producer = await stack.enter_async_context(AsyncProducer(cluster.namesrv, watch_routes=True))
        consumer = await stack.enter_async_context(AsyncSimpleConsumer(name, {name: "*"}, cluster.namesrv))
        before = [await producer.send(Message(name, f"{number}".encode())) for number in range(8)]
        assert {result.broker for result in before} == {"broker-a", "broker-b"}
        assert "broker-a is read now" in await shell.run("broker", "off", "broker-a")
        try:
            off = [await producer.send(Message(name, f"off {number}".encode())) for number in range(8)]
            assert {result.broker for result in off} == {"broker-b"}
            permissions = {row["name"]: row["permission"] for row in await shell.rows("broker", "list")}
            assert permissions == {"broker-a": "read", "broker-b": "read-write"}
            received = set[tuple[str, bytes]]()
            while len(received) < 16:
                messages = await consumer.receive(wait_s=5)
                assert messages
                received.update((message.broker, message.body) for message in messages)
                await consumer.ack(messages)
            assert {broker for broker, _ in received} == {"broker-a", "broker-b"}
        finally:
            assert "read-write" in await shell.run("broker", "on", "broker-a")

        async def used_again() -> bool:
            return (await producer.send(Message(name, b"on"))).broker == "broker-a"

        await eventually(used_again, 5)


async def test_a_send_goes_elsewhere_when_it_is_forbidden(cluster: Cluster, operator: Operator, name: str) -> None:
    """A producer whose route is old by up to 30 s sees no error."""
    await operator.create_topic(name, QUEUES)
    async with AsyncProducer(cluster.namesrv) as producer:
        await producer.send(Message(name, b"x"))
        await operator.set_permission("broker-b", v2.READ)
        try:
            results = [await producer.send(Message(name, b"x")) for _ in range(8)]
            assert {result.broker for result in results} == {"broker-a"}
        finally:
            await operator.set_permission("broker-b", v2.READ_WRITE)


async def test_progress_is_moved(cluster: Cluster, operator: Operator, shell: Shell, name: str) -> None:
    await operator.create_topic(name, queues=1, brokers=["broker-a"])
    await operator.create_group(name)

    async def receive_all() -> list[str]:
        bodies: list[str] = []
        async with AsyncSimpleConsumer(name, {name: "*"}, cluster.namesrv) as consumer:
            while messages := await consumer.receive(wait_s=1):
                bodies += [message.body.decode() for message in messages]
                await consumer.ack(messages)
        return sorted(bodies)

    await send(cluster, name, "0", "1", "2")
    await asyncio.sleep(0.01)
    between = datetime.now(UTC).isoformat()
    await asyncio.sleep(0.01)
    await send(cluster, name, "3", "4")
    assert await receive_all() == ["0", "1", "2", "3", "4"]
    assert await operator.lag(name, name) == 0

    reset = ("offset", "reset", name, name)
    await shell.run(*reset, "--first")
    [row] = await shell.rows("progress", name)
    assert (row["committed_offset"], row["next_offset"], row["lag"]) == (0, 5, 5)
    assert await receive_all() == ["0", "1", "2", "3", "4"]
    assert await shell.rows(*reset, "--to-offset", "4") == [{"broker": "broker-a", "queue": 0, "offset": 4}]
    assert await receive_all() == ["4"]
    await shell.run(*reset, "--to-time", between)
    assert await receive_all() == ["3", "4"]
    await shell.run(*reset, "--first")
    await shell.run(*reset, "--last")
    assert await receive_all() == []
    failed = await shell.run(*reset, "--first", "--last", code=2)
    assert "exactly one" in failed
    failed = await shell.run("offset", "reset", "no-such-group", name, "--first", code=1)
    assert "no-such-group" in failed


async def test_messages_are_found(cluster: Cluster, operator: Operator, shell: Shell, name: str) -> None:
    await operator.create_topic(name, QUEUES)
    begin = datetime.now(UTC).isoformat()
    results = await send(cluster, name, "a", "b", "c", "d", key="order")
    await asyncio.sleep(0.01)
    end = datetime.now(UTC).isoformat()
    await asyncio.sleep(0.01)
    await send(cluster, name, "later")
    wanted = results[2]
    assert wanted.offset_message_id is not None
    found = {
        "id": await shell.rows("message", "find", "--topic", name, "--id", wanted.message_id),
        "offset id": await shell.rows("message", "find", "--offset-id", wanted.offset_message_id),
        "key": await shell.rows("message", "find", "--topic", name, "--key", "order-c"),
    }
    for how, rows in found.items():
        assert len(rows) == 1, how
        [row] = rows
        assert (row["body"], row["keys"], row["message_id"]) == ("c", ["order-c"], wanted.message_id), how
        assert (row["broker"], row["queue"], row["offset"]) == (wanted.broker, wanted.queue_id, wanted.offset), how
        assert row["offset_message_id"] == wanted.offset_message_id, how
    by_time = await shell.rows("message", "find", "--topic", name, "--from", begin, "--to", end)
    assert sorted(row["body"] for row in by_time) == ["a", "b", "c", "d"]
    assert await shell.rows("message", "find", "--topic", name, "--key", "none") == []


async def test_live_clients_are_listed_with_their_groups(
    cluster: Cluster, operator: Operator, shell: Shell, name: str
) -> None:
    await operator.create_topic(name, QUEUES)
    await operator.create_group(name)

    async def listen(_: ReceivedMessage) -> None: ...

    async with AsyncExitStack() as stack:
        producer = await stack.enter_async_context(AsyncProducer(cluster.namesrv, group=f"{name}-senders"))
        results = [await producer.send(Message(name, b"x")) for _ in range(4)]
        consumer = await stack.enter_async_context(AsyncPushConsumer(name, {name: "a||b"}, listen, cluster.namesrv))

        async def listed() -> bool:
            senders = await shell.rows("client", "list", "--group", f"{name}-senders")
            readers = await shell.rows("client", "list", "--group", name)
            assert {row["client_id"] for row in senders} == {producer.client_id}
            assert {row["client_id"] for row in readers} == {consumer.client_id}
            assert {row["broker"] for row in senders} == {result.broker for result in results}
            assert {row["broker"] for row in readers} == {"broker-a", "broker-b"}
            assert {row["type"] for row in readers} == {"push-consumer"}
            assert readers[0]["subscriptions"] == [f"{name}:a||b"]
            assert senders[0]["language"] == "python"
            return True

        await eventually(listed, 15, 0.5)
        [owner] = {row["owner"] for row in await shell.rows("progress", name)}
        assert owner == consumer.client_id

    async def gone() -> bool:
        return await shell.rows("client", "list", "--group", name) == []

    await eventually(gone, 10, 0.5)


async def test_topics_and_groups_are_changed_and_deleted(
    cluster: Cluster, operator: Operator, shell: Shell, name: str
) -> None:
    await shell.run("topic", "create", name, "--queues", "2")
    assert "exists" in await shell.run("topic", "create", name, "--queues", "3", code=1)
    await shell.run("topic", "change", name, "--queues", "3")
    route = await shell.rows("route", name)
    assert len(route) == 6
    await shell.run("group", "create", name, "--max-attempts", "7", "--order", "fifo")
    [group] = [row for row in await shell.rows("group", "list") if row["name"] == name]
    assert (group["max_attempts"], group["order"]) == (7, "fifo")
    await shell.run("group", "change", name, "--max-attempts", "8")
    assert json.loads(await shell.run("group", "show", name, "--json"))["max_attempts"] == 8
    await shell.run("group", "delete", name, "--yes")
    assert f"no group {name}" in await shell.run("group", "show", name, code=1)
    await send(cluster, name, "x")
    await shell.run("topic", "delete", name, "--yes")
    assert "kourou topic create" in await shell.run("send", name, "x", code=1)
    # The same name again is a new topic: nothing of the old one is in it.
    await operator.create_topic(name, queues=1)
    await operator.create_group(name)
    async with AsyncSimpleConsumer(name, {name: "*"}, cluster.namesrv) as consumer:
        assert await consumer.receive(wait_s=1) == []


async def test_a_second_broker_of_the_same_name_takes_no_writes(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(brokers=1)
    impostor = BrokerNode("broker-a", cluster.folder / "impostor", cluster.namesrvs, {})
    try:
        await asyncio.to_thread(impostor.start)
        await asyncio.to_thread(impostor.wait_for_output, "refused by a NameServer", 10)
        assert "another broker with the name broker-a" in impostor.output
        assert impostor.running
        async with Operator(cluster) as operator:
            description = await eventually(lambda: operator.describe(impostor.address))
            assert "another broker with the name broker-a" in description.refused_reason
            genuine = await operator.describe(cluster.brokers[0].address)
            assert not genuine.refused_reason
            await operator.create_topic("t", queues=1)
            with pytest.raises(Exception, match="refused"):
                await operator.send_straight(impostor.address, "t")
        # The genuine one stops cleanly: its name is free, and the other one takes it.
        assert await asyncio.to_thread(cluster.brokers[0].end) == 0
        await asyncio.to_thread(impostor.wait_for_output, '"registered"', 25)
    finally:
        impostor.dispose()


async def test_a_data_folder_belongs_to_one_process(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(namesrvs=1, brokers=1)
    [broker] = cluster.brokers
    second = BrokerNode("broker-b", cluster.folder, cluster.namesrvs, {"data": broker.data})
    try:
        second.launch()
        assert await asyncio.to_thread(second.wait, 15) == 1
        [line] = second.output.splitlines()
        assert line.startswith("kourou broker: ")
        assert str(broker.data) in line
    finally:
        second.dispose()
    assert broker.running
