"""Where a group reads: from a time on, and moved by an operator while its members are at work, over two brokers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from kourou import AsyncProducer, AsyncPushConsumer, Message, ReceivedMessage
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually

NOTHING_MORE_S = 1.0
"""Long enough for what is due at once to come."""


async def send(cluster: Cluster, topic: str, *bodies: str) -> None:
    """One after the other, so that all queues get some."""
    async with AsyncProducer(cluster.namesrv) as producer:
        for body in bodies:
            await producer.send(Message(topic, body.encode()))


async def a_moment(cluster: Cluster, topic: str) -> str:
    """-> a time, as the command takes it, after the messages of before and before those of after."""
    await send(cluster, topic, *(f"before {number}" for number in range(8)))
    await asyncio.sleep(0.02)  # times are of a millisecond
    moment = datetime.now(UTC).isoformat()
    await asyncio.sleep(0.02)
    await send(cluster, topic, *(f"after {number}" for number in range(8)))
    return moment


BEFORE, AFTER = ({f"{when} {number}" for number in range(8)} for when in ("before", "after"))


@asynccontextmanager
async def members(cluster: Cluster, group: str, topic: str, count: int) -> AsyncIterator[Counter[str]]:
    """So many push consumers; -> what all of them have heard."""
    heard = Counter[str]()

    async def listen(message: ReceivedMessage) -> None:
        heard[message.body.decode()] += 1

    consumers = [AsyncPushConsumer(group, {topic: "*"}, listen, cluster.namesrv) for _ in range(count)]
    try:
        for consumer in consumers:
            await consumer.start()
        yield heard
    finally:
        await asyncio.gather(*(consumer.close() for consumer in consumers))


async def kourou(cluster: Cluster, *args: str) -> None:
    await asyncio.to_thread(cluster.kourou, *args)


async def test_a_group_that_starts_at_a_time(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name, queues=2)
    moment = await a_moment(cluster, name)
    await kourou(cluster, "group", "create", name, "--from", moment)
    async with members(cluster, name, name, 1) as heard:
        await send(cluster, name, "later")
        await eventually(lambda: heard.keys() >= AFTER | {"later"})
        await asyncio.sleep(NOTHING_MORE_S)
    assert heard == Counter(AFTER | {"later"})


async def test_offsets_reset_while_members_are_at_work(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name, queues=2)
    await operator.create_group(name)
    reset = ("offset", "reset", name, name)
    async with members(cluster, name, name, 2) as heard:
        moment = await a_moment(cluster, name)
        await eventually(lambda: heard == Counter(BEFORE | AFTER), timeout_s=30)
        await kourou(cluster, *reset, "--to-time", moment)
        await eventually(lambda: heard == Counter(BEFORE | AFTER) + Counter(AFTER))
        await kourou(cluster, *reset, "--first")
        await eventually(lambda: heard == Counter({**dict.fromkeys(BEFORE, 2), **dict.fromkeys(AFTER, 3)}))
        await send(cluster, name, "later")
        await eventually(lambda: heard["later"])

        async def settled() -> bool:
            return not await operator.lag(name, name)

        await eventually(settled)
        await asyncio.sleep(NOTHING_MORE_S)
    assert heard == Counter({**dict.fromkeys(BEFORE, 2), **dict.fromkeys(AFTER, 3), "later": 1})


async def test_a_reset_skips_what_nobody_could_hear_yet(cluster: Cluster, operator: Operator, name: str) -> None:
    """What the member has already is heard to its end, and nothing twice."""
    await operator.create_topic(name, queues=1)
    await operator.create_group(name)
    started, go_on = list[str](), asyncio.Event()

    async def listen(message: ReceivedMessage) -> None:
        started.append(message.body.decode())
        await go_on.wait()

    consumer = AsyncPushConsumer(name, {name: "*"}, listen, cluster.namesrv, concurrency=2, max_cached_count=2)
    async with consumer:
        await send(cluster, name, *(f"{number}" for number in range(80)))
        await eventually(lambda: len(started) == 2)
        await kourou(cluster, "offset", "reset", name, name, "--last")
        go_on.set()
        await send(cluster, name, "new", "new too")
        await eventually(lambda: {"new", "new too"} <= set(started))
        assert await operator.lag(name, name) <= 2
    skipped = 82 - len(started)
    assert skipped > 0, "the reset skipped nothing"
    assert Counter(started).most_common(1)[0][1] == 1
