"""Who of a group gets which messages: exclusive, shared, broadcasting; members come, leave and die."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from kourou import AsyncProducer, AsyncPushConsumer, AsyncSimpleConsumer, Broadcasting, Message, ReceivedMessage
from tests.cluster.cluster import Cluster
from tests.cluster.load import Place
from tests.cluster.operator_client import Operator
from tests.cluster.process import Process
from tests.cluster.waiting import eventually

QUEUES = 4
ALL_QUEUES = 2 * QUEUES
# A member that dies is missed after the grace of its stream (5 s); a client asks for its queues every 5 s.
REBALANCE_S = 15.0


class Member:
    """A push consumer and what it heard."""

    def __init__(self, consumer: AsyncPushConsumer, heard: list[ReceivedMessage]) -> None:
        self.consumer, self.heard = consumer, heard

    @property
    def id(self) -> str:
        return self.consumer.client_id


@asynccontextmanager
async def member(cluster: Cluster, group: str, topic: str, client_id: str) -> AsyncIterator[Member]:
    heard: list[ReceivedMessage] = []

    async def listen(message: ReceivedMessage) -> None:
        heard.append(message)

    async with AsyncPushConsumer(group, {topic: "*"}, listen, cluster.namesrv, client_id=client_id) as consumer:
        yield Member(consumer, heard)


async def send_everywhere(cluster: Cluster, topic: str, rounds: int = 3, prefix: str = "") -> set[bytes]:
    """Until each queue of both brokers has got some."""
    sent = set[bytes]()
    async with AsyncProducer(cluster.namesrv) as producer:
        reached = Counter[tuple[str, int]]()
        while len(reached) < ALL_QUEUES or min(reached.values()) < rounds:
            body = f"{prefix}{len(sent)}".encode()
            result = await producer.send(Message(topic, body))
            reached[result.broker, result.queue_id] += 1
            sent.add(body)
    return sent


async def spread_over(operator: Operator, group: str, topic: str, *members: str) -> dict[str, int]:
    """Waits until exactly these members own all queues; how many each of them has."""

    async def counts() -> Counter[str]:
        # Queues that nobody has read yet have no progress: they are read by then.
        owners = await operator.owners(group, topic)
        assert len(owners) == ALL_QUEUES, owners
        count = Counter(owners.values())
        assert set(count) == set(members), f"{count} instead of {members}"
        return count

    return dict(await eventually(counts, REBALANCE_S, what=f"queues of {members}"))


async def test_queues_move_as_members_come_and_leave(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name, QUEUES)
    await operator.create_group(name)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(member(cluster, name, name, "member-1"))
        bodies = await send_everywhere(cluster, name)
        await eventually(lambda: {message.body for message in first.heard} == bodies)
        assert await spread_over(operator, name, name, "member-1") == {"member-1": ALL_QUEUES}

        async with member(cluster, name, name, "member-2") as second, member(cluster, name, name, "member-3") as third:
            spread = await spread_over(operator, name, name, "member-1", "member-2", "member-3")
            assert sorted(spread.values()) == [2, 3, 3]
            for each in (first, second, third):
                each.heard.clear()
            bodies = await send_everywhere(cluster, name, rounds=5, prefix="three ")
            await eventually(lambda: heard_of(first, second, third) == bodies)
            places = [{Place.of(message)[:2] for message in each.heard} for each in (first, second, third)]
            assert [len(queues) for queues in places] == [spread[f"member-{number}"] for number in (1, 2, 3)]
            assert len(set.union(*places)) == ALL_QUEUES, "each queue has one member"

        # Both left cleanly: the first one has everything again, within seconds.
        assert await spread_over(operator, name, name, "member-1") == {"member-1": ALL_QUEUES}
        first.heard.clear()
        bodies = await send_everywhere(cluster, name, prefix="one ")
        await eventually(lambda: heard_of(first) == bodies)
        assert len(first.heard) == len(bodies)


def heard_of(*members: Member) -> set[bytes]:
    return {message.body for each in members for message in each.heard}


async def test_surplus_members_are_idle_until_they_are_needed(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name, queues=1)  # one on each broker
    await operator.create_group(name)
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(member(cluster, name, name, f"m{number}")) for number in range(3)]

        async def all_heard(prefix: str) -> list[int]:
            """Sends until the two owners alone hear everything."""
            for each in members:
                each.heard.clear()
            async with AsyncProducer(cluster.namesrv) as producer:
                sent = {f"{prefix} {number}".encode() for number in range(20)}
                for body in sent:  # one at a time: those that meet share a frame, which goes to one broker
                    await producer.send(Message(name, body))
            await eventually(lambda: sent <= heard_of(*members), REBALANCE_S)
            return [len(each.heard) for each in members]

        async def owners() -> bool:
            return Counter((await operator.owners(name, name)).values()) == {"m0": 1, "m1": 1}

        await all_heard("before")
        await eventually(owners)
        counts = await all_heard("after")
        assert counts[2] == 0
        assert min(counts[:2]) > 0


async def test_a_killed_member_is_replaced(cluster: Cluster, operator: Operator, name: str, tmp_path: Path) -> None:
    await operator.create_topic(name, QUEUES)
    await operator.create_group(name)
    program = Path(__file__).with_name("member.py")
    doomed = Process("member", [sys.executable, str(program), cluster.namesrv, name, name], tmp_path, ready="listens")
    try:
        await asyncio.to_thread(doomed.start)
        async with member(cluster, name, name, "survivor") as survivor:
            await send_everywhere(cluster, name)
            doomed_id = doomed.output.split()[1]
            spread = await spread_over(operator, name, name, "survivor", doomed_id)
            assert spread == {"survivor": QUEUES, doomed_id: QUEUES}

            await asyncio.to_thread(doomed.kill)
            killed_s = asyncio.get_running_loop().time()
            survivor.heard.clear()
            bodies = await send_everywhere(cluster, name, prefix="after ")
            await eventually(lambda: bodies <= heard_of(survivor), REBALANCE_S)
            assert asyncio.get_running_loop().time() - killed_s < REBALANCE_S
            assert await spread_over(operator, name, name, "survivor") == {"survivor": ALL_QUEUES}
    finally:
        doomed.dispose()


async def test_a_shared_group_shares_each_queue(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name, queues=1, brokers=["broker-a"])
    await operator.create_group(name, shared=True)
    heard = Counter[str]()
    bodies = list[bytes]()

    async def listen(who: str, message: ReceivedMessage) -> None:
        heard[who] += 1
        bodies.append(message.body)
        await asyncio.sleep(0.02)  # long enough for the other to get something

    async def listen_1(message: ReceivedMessage) -> None:
        await listen("one", message)

    async def listen_2(message: ReceivedMessage) -> None:
        await listen("two", message)

    async with AsyncExitStack() as stack:
        for listener in (listen_1, listen_2):
            consumer = AsyncPushConsumer(
                name, {name: "*"}, listener, cluster.namesrv, concurrency=1, max_cached_count=1
            )
            await stack.enter_async_context(consumer)
        producer = await stack.enter_async_context(AsyncProducer(cluster.namesrv))
        sent = sorted(f"{number:03}".encode() for number in range(100))
        for body in sent:
            await producer.send(Message(name, body))
        await eventually(lambda: len(bodies) >= len(sent), 20)
    assert sorted(bodies) == sent
    assert min(heard["one"], heard["two"]) > 10, heard


async def test_simple_consumers_share(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name, QUEUES)
    await operator.create_group(name)
    bodies = await send_everywhere(cluster, name)
    received: list[list[bytes]] = [[], []]
    async with AsyncExitStack() as stack:
        consumers = [
            await stack.enter_async_context(AsyncSimpleConsumer(name, {name: "*"}, cluster.namesrv)) for _ in range(2)
        ]
        while sum(map(len, received)) < len(bodies):
            for consumer, mine in zip(consumers, received, strict=True):
                messages = await consumer.receive(2, wait_s=2)
                mine.extend(message.body for message in messages)
                if messages:
                    await consumer.ack(messages)
    assert sorted(received[0] + received[1]) == sorted(bodies)
    assert received[0]
    assert received[1]


async def test_broadcasting_gives_everything_to_everyone(
    cluster: Cluster, operator: Operator, name: str, tmp_path: Path
) -> None:
    """And a member that comes back goes on where it was."""
    await operator.create_topic(name, QUEUES)
    await operator.create_group(name)
    heard: dict[str, list[bytes]] = {"one": [], "two": []}

    def consumer(who: str) -> AsyncPushConsumer:
        async def listen(message: ReceivedMessage) -> None:
            heard[who].append(message.body)

        progress = Broadcasting(offsets_path=tmp_path / who, start="first")
        return AsyncPushConsumer(name, {name: "*"}, listen, cluster.namesrv, broadcasting=progress)

    first = await send_everywhere(cluster, name, prefix="first ")
    async with consumer("one"), consumer("two"):
        await eventually(lambda: all(set(bodies) == first for bodies in heard.values()))
    second = await send_everywhere(cluster, name, prefix="second ")
    async with consumer("one"), consumer("two"):
        await eventually(lambda: all(set(bodies) == first | second for bodies in heard.values()))
    assert all(len(bodies) == len(first | second) for bodies in heard.values()), "nothing twice"
