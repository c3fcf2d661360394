"""What is on the disk: a full one, retention, snapshots, damage, and `kourou dev` after kill -9."""

import asyncio
import random
from collections.abc import Callable

import pytest

from kourou import AsyncProducer, AsyncSimpleConsumer, Forbidden, Message, SendResult
from tests.cluster.cluster import Cluster, Dev
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually

MIB = 1 << 20
FILL_BATCH = 20


async def fill(cluster: Cluster, topic: str, total_bytes: int, body_bytes: int = 16_000) -> list[SendResult]:
    """Bodies that begin with their number."""
    rng = random.Random(0)
    bodies = [f"{number:06} ".encode() + rng.randbytes(body_bytes) for number in range(total_bytes // body_bytes)]
    async with AsyncProducer(cluster.namesrv, send_timeout_s=20) as producer:
        results: list[SendResult] = []
        for start in range(0, len(bodies), FILL_BATCH):
            results += await producer.send_many([Message(topic, body) for body in bodies[start : start + FILL_BATCH]])
        return results


async def receive(cluster: Cluster, group: str, topic: str, *, ack: bool = True, idle_s: float = 1.0) -> list[int]:
    """The numbers of the bodies, until nothing comes any more."""
    numbers: list[int] = []
    async with AsyncSimpleConsumer(group, {topic: "*"}, cluster.namesrv) as consumer:
        while messages := await consumer.receive(wait_s=idle_s):
            numbers += [int(message.body[:6]) for message in messages]
            if ack:
                await consumer.ack(messages)
    return sorted(numbers)


async def test_a_full_disk_refuses_messages_and_takes_acknowledgements(new_cluster: Callable[..., Cluster]) -> None:
    """The watermark is set above all the space there is, as if the disk had filled up meanwhile."""
    cluster = new_cluster(namesrvs=1, brokers=1)
    [broker] = cluster.brokers
    async with Operator(cluster) as operator:
        await operator.create_topic("t")
        await operator.create_group("g")
        async with AsyncProducer(cluster.namesrv) as producer:
            await producer.send_many([Message("t", f"{number:06}".encode()) for number in range(10)])
        assert await asyncio.to_thread(broker.end) == 0
        broker.set("disk_watermark_bytes", 1 << 60)
        await asyncio.to_thread(broker.start)
        await asyncio.to_thread(cluster.wait_until_registered, broker)

        async def full() -> bool:
            return (await operator.describe(broker.address)).disk_full

        await eventually(full)
        async with AsyncProducer(cluster.namesrv) as producer:
            with pytest.raises(Forbidden, match="disk is nearly full"):
                await producer.send(Message("t", b"x"))
        assert await receive(cluster, "g", "t") == list(range(10))
        assert await operator.lag("g", "t") == 0
        # Settled for good: it is kept over kill -9, and there is room again.
        await asyncio.to_thread(broker.kill)
        broker.set("disk_watermark_bytes", 0)
        await asyncio.to_thread(broker.start)
        await asyncio.to_thread(cluster.wait_until_registered, broker)
        assert await receive(cluster, "g", "t") == []
        async with AsyncProducer(cluster.namesrv) as producer:
            await producer.send(Message("t", b"000042"))
        assert await receive(cluster, "g", "t") == [42]


async def test_retention_snapshots_and_a_restart(new_cluster: Callable[..., Cluster]) -> None:
    """Old segments go, under load; what a group still holds of them stays; a start needs no more than a snapshot."""
    cluster = new_cluster(
        namesrvs=1,
        brokers=1,
        broker={
            "segment_bytes": MIB,
            "snapshot_every_bytes": MIB,
            "retention_bytes": 4 * MIB,
            "retention_interval_s": 0.2,
        },
    )
    [broker] = cluster.brokers
    async with Operator(cluster) as operator:
        await operator.create_topic("t", queues=2)
        await operator.create_group("slow")
        async with AsyncSimpleConsumer("slow", {"t": "*"}, cluster.namesrv) as slow:
            # It holds one of the very first messages all the time.
            first = await fill(cluster, "t", 200_000)
            [held] = await slow.receive(1, invisible_duration_s=600)
            sent = len(first)

            async def dropped() -> bool:
                """Under load: what the older of two snapshots needs stays until the next one is made."""
                nonlocal sent
                sent += len(await fill(cluster, "t", MIB))
                sizes = [path.stat().st_size for path in (broker.data / "segments").glob("*.segment")]
                return sent * 16_000 > 16 * MIB and sum(sizes) <= 8 * MIB

            await eventually(dropped, 30, 0.2, what="old segments are dropped")
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
            await asyncio.to_thread(cluster.wait_until_registered, broker)
            sent += len(await fill(cluster, "t", 2 * MIB))
            await slow.ack(held)
        rest = await receive(cluster, "slow", "t")
        assert rest
        assert await operator.lag("slow", "t") == 0
        progress = await operator.progress("slow", "t")
        assert sum(each.committed_offset for each in progress.values()) == sent
        assert len(rest) < sent, "the oldest have expired"


async def test_a_damaged_log_is_refused_and_repaired(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(namesrvs=1, brokers=1, broker={"segment_bytes": MIB})
    [broker] = cluster.brokers
    async with Operator(cluster) as operator:
        await operator.create_topic("t", queues=1)
        await operator.create_group("g")
        results = await fill(cluster, "t", 3 * MIB)
        assert await asyncio.to_thread(broker.end) == 0
        data = ("--data", str(broker.data))
        segment = sorted((broker.data / "segments").glob("*.segment"))[1]
        with segment.open("r+b") as file:
            file.seek(MIB // 2)
            file.write(b"\xff" * 100)
        before = {path.name: path.read_bytes() for path in segment.parent.glob("*.segment")}
        broker.launch()
        assert await asyncio.to_thread(broker.wait, 20) == 1
        [line] = broker.output.splitlines()
        assert segment.stem in line
        assert f"kourou log repair --data {broker.data}" in line
        assert {path.name: path.read_bytes() for path in segment.parent.glob("*.segment")} == before

        assert "DAMAGED" in (await asyncio.to_thread(cluster.kourou, "log", "inspect", *data, code=1)).stdout
        await asyncio.to_thread(cluster.kourou, "log", "repair", *data, "--yes")
        await asyncio.to_thread(broker.start)
        await asyncio.to_thread(cluster.wait_until_registered, broker)
        # All but the damaged frame is there, before it and behind it; and what comes now finds its place.
        numbers = await receive(cluster, "g", "t")
        lost = sorted(set(range(len(results))) - set(numbers))
        assert 0 < len(lost) <= FILL_BATCH
        assert lost == list(range(lost[0], lost[-1] + 1))
        assert await fill(cluster, "t", 100_000)
        assert len(await receive(cluster, "g", "t")) == 6
        assert await operator.lag("g", "t") == 0


async def test_the_local_cluster_survives_kill_9(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev()
    await asyncio.to_thread(dev.kourou, "topic", "create", "t")
    async with AsyncProducer(dev.namesrv) as producer:
        await producer.send_many([Message("t", f"{number:06}".encode()) for number in range(100)])
    async with AsyncSimpleConsumer("g", {"t": "*"}, dev.namesrv) as consumer:
        done = await consumer.receive(30)
        await consumer.ack(done)
        await asyncio.to_thread(dev.node.kill)
        await asyncio.to_thread(dev.node.start)
        # The same consumer goes on.
        rest: list[int] = []
        while messages := await consumer.receive(wait_s=3):
            rest += [int(message.body) for message in messages]
            await consumer.ack(messages)
    assert sorted([*rest, *(int(message.body) for message in done)]) == list(range(100))
