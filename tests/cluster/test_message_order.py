"""FIFO, PRIORITY and where a group starts, through the library and real processes."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from kourou import AsyncProducer, AsyncPushConsumer, AsyncSimpleConsumer, Message, ReceivedMessage
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.log.v1 import record_pb2
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually

GROUPS = ("red", "green", "blue")
EACH = 60


class Heard:
    """Numbers of each message group in the order in which listeners began with them."""

    def __init__(self) -> None:
        self.numbers: dict[str, list[int]] = {group: [] for group in GROUPS}
        self.done: dict[str, set[int]] = {group: set() for group in GROUPS}
        self.by: dict[str, set[str]] = {}

    async def listen(self, member: str, message: ReceivedMessage) -> bool:
        group, number = str(message.message_group), int(message.body)
        self.by.setdefault(member, set()).add(group)
        self.numbers[group].append(number)
        await asyncio.sleep(0.01)
        if number % 20 == 5 and self.numbers[group].count(number) == 1:
            return False  # it comes again, and those behind it wait
        self.done[group].add(number)
        return True

    @property
    def progress(self) -> int:
        return sum(map(len, self.done.values()))


async def test_message_groups_keep_their_order_over_a_kill_and_a_change_of_members(
    new_cluster: Callable[..., Cluster],
) -> None:
    cluster = new_cluster(namesrvs=1, brokers=1)
    [broker] = cluster.brokers
    heard = Heard()

    def member(id_: str) -> AsyncPushConsumer:
        async def listen(message: ReceivedMessage) -> bool:
            return await heard.listen(id_, message)

        return AsyncPushConsumer("team", {"orders": "*"}, listen, cluster.namesrv, client_id=id_)

    async with Operator(cluster) as operator, AsyncExitStack() as stack:
        await operator.create_topic("orders", message_type=v2.FIFO)
        await operator.create_group("team", order=record_pb2.ORDER_FIFO)
        async with AsyncProducer(cluster.namesrv) as producer:
            for number in range(EACH):
                for group in GROUPS:
                    await producer.send(Message("orders", str(number).encode(), message_group=group))
        await stack.enter_async_context(member("member-1"))
        await eventually(lambda: heard.progress > 20, 20)
        broker.kill()
        broker.start()
        await stack.enter_async_context(member("member-2"))
        await eventually(lambda: heard.progress == EACH * len(GROUPS), 100)

        async def nothing_left() -> bool:
            return await operator.lag("team", "orders") == 0

        await eventually(nothing_left, 15)
    for group, numbers in heard.numbers.items():
        assert numbers == sorted(numbers), f"{group} went back: {numbers}"
        assert heard.done[group] == set(range(EACH))
        assert numbers.count(5) > 1, "what failed came again"


async def test_the_most_urgent_messages_come_first(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name, queues=3, message_type=v2.PRIORITY, brokers=["broker-a"])
    await operator.create_group(name)
    async with AsyncProducer(cluster.namesrv) as producer:
        for priority in (0, 2, 1, 9, 0, 1):
            await producer.send(Message(name, str(priority).encode(), priority=priority))
    async with AsyncSimpleConsumer(name, {name: "*"}, cluster.namesrv) as consumer:
        bodies: list[bytes] = []
        while len(bodies) < 6:
            received = await consumer.receive(2, wait_s=5, invisible_duration_s=30)
            bodies += [message.body for message in received]
            for message in received:
                await consumer.ack(message)
    assert bodies == [b"2", b"9", b"1", b"1", b"0", b"0"]


async def test_members_of_a_group_share_all_levels(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name, queues=3, message_type=v2.PRIORITY)
    await operator.create_group(name)
    heard: dict[str, list[bytes]] = {"member-1": [], "member-2": []}

    def member(id_: str) -> AsyncPushConsumer:
        async def listen(message: ReceivedMessage) -> None:
            await asyncio.sleep(0.05)
            heard[id_].append(message.body)

        return AsyncPushConsumer(name, {name: "*"}, listen, cluster.namesrv, client_id=id_)

    sent = [f"{priority} {number}".encode() for number in range(10) for priority in (0, 1, 2)]
    async with member("member-1"), member("member-2"), AsyncProducer(cluster.namesrv) as producer:
        for body in sent:
            await producer.send(Message(name, body, priority=int(body[:1])))
        await eventually(lambda: sum(map(len, heard.values())) >= len(sent), 30)
    assert sorted(heard["member-1"] + heard["member-2"]) == sorted(sent)


async def test_a_group_that_starts_at_the_last_message(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name, brokers=["broker-a"])
    await operator.create_group(name, start=record_pb2.START_LAST)
    async with AsyncProducer(cluster.namesrv) as producer:
        for number in range(20):
            await producer.send(Message(name, f"old {number}".encode()))
        async with AsyncSimpleConsumer(name, {name: "*"}, cluster.namesrv) as consumer:
            assert await consumer.receive(32, wait_s=0.5) == []
            sent = {f"new {number}".encode() for number in range(20)}
            for body in sorted(sent):
                await producer.send(Message(name, body))
            received: set[bytes] = set()
            while len(received) < len(sent):
                for message in await consumer.receive(32, wait_s=5, invisible_duration_s=30):
                    received.add(message.body)
                    await consumer.ack(message)
    assert received == sent
