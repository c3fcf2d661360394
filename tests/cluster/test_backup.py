"""`kourou broker backup`: under load, while retention works; broken off; and a broker that is started on the copy."""

import asyncio
import random
import re
import signal
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from kourou import AsyncProducer, AsyncSimpleConsumer, Message, ReceivedMessage
from tests.cluster.cluster import BrokerNode, Cluster
from tests.cluster.load import INVISIBLE_S, Load, Place
from tests.cluster.operator_client import Operator
from tests.cluster.process import BIN
from tests.cluster.waiting import eventually

MIB = 1 << 20
SMALL = {"segment_bytes": MIB, "snapshot_every_bytes": MIB, "retention_interval_s": 0.2}
INTERRUPTED = 130
SLOW_S = INVISIBLE_S + 2
BODY_BYTES = 16_000


class Command:
    """`kourou broker backup broker-a`, while other things happen."""

    def __init__(self, cluster: Cluster, output: Path, rate: int = 100) -> None:
        self._cluster = cluster
        self.output = output
        self.partial = output.with_name(output.name + ".partial")
        self._args = ("broker", "backup", "broker-a", "--output", str(output), "--rate", str(rate))

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            BIN / "kourou",
            *self._args,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._cluster.environment(),
        )

    async def copying(self, size_bytes: int) -> None:
        """So much has come."""
        await eventually(lambda: sum(path.stat().st_size for path in self.partial.rglob("*.segment")) > size_bytes)

    async def end(self, code: int = 0) -> str:
        """What it wrote."""
        async with asyncio.timeout(60):
            out, error = await self.process.communicate()
        text = (out + error).decode()
        assert self.process.returncode == code, text
        return text

    async def run(self, code: int = 0) -> str:
        await self.start()
        return await self.end(code)


async def fill(cluster: Cluster, size_bytes: int, topic: str = "bulk") -> None:
    body = random.Random(0).randbytes(BODY_BYTES)
    async with AsyncProducer(cluster.namesrv, send_timeout_s=20) as producer:
        for _ in range(size_bytes // len(body) // 10):
            await producer.send_many([Message(topic, body)] * 10)


async def receive_all(cluster: Cluster, group: str, topic: str, wait_s: float = 0.5) -> dict[Place, bytes]:
    """Until nothing comes any more, at first for `wait_s`; acknowledged."""
    found: dict[Place, bytes] = {}
    async with AsyncSimpleConsumer(group, {topic: "*"}, cluster.namesrv) as consumer:
        messages: list[ReceivedMessage] = []
        while messages := await consumer.receive(wait_s=wait_s):
            wait_s = 0.5
            found.update((Place.of(message), message.body) for message in messages)
            await consumer.ack(messages)
    return found


async def test_a_broker_is_started_on_a_backup_made_under_load(
    new_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = new_cluster(namesrvs=1, brokers=1, broker={**SMALL, "retention_bytes": 12 * MIB})
    [broker] = cluster.brokers
    command = Command(cluster, tmp_path / "backups" / "broker-a", rate=4)
    async with Operator(cluster) as operator:
        await operator.create_topic("load", queues=4)
        await operator.create_topic("bulk")
        await operator.create_topic("few", queues=1)
        for group in ("simple", "audit", "slow"):
            await operator.create_group(group)
        await fill(cluster, 14 * MIB)
        load = Load(cluster.namesrv, "load", "simple")
        async with (
            load.running(),
            AsyncSimpleConsumer("slow", {"few": "*"}, cluster.namesrv) as slow,
            asyncio.TaskGroup() as tasks,
        ):
            await load.progressed(300)
            await fill(cluster, 40 * BODY_BYTES, "few")
            early = await slow.receive(20, invisible_duration_s=SLOW_S)
            late = await slow.receive(20, invisible_duration_s=SLOW_S)
            assert len(early) == len(late) == 20
            await slow.ack(early)
            sent, settled = dict(load.acknowledged), set(load.confirmed)
            first = (await operator.describe(broker.address)).log_first_position
            await command.start()
            await command.copying(MIB)
            await slow.ack(late)
            bulk = tasks.create_task(fill(cluster, 12 * MIB))
            await load.progressed(300)
            said = await command.end()
            await bulk
            last = await operator.describe(broker.address)
            assert last.log_first_position > first, "retention stood still"
            await load.progressed(100)
            await load.finish(operator)
        assert not [error for error in load.errors if error.startswith("send")], load.errors
        assert not command.partial.exists()
        assert "verified" in said
        found = re.search(r"up to log position (\d+)", said)
        assert found is not None
        position = int(found[1])
        assert position < last.log_durable_position

        await asyncio.to_thread(broker.kill)
        broker.set("data", command.output)
        await asyncio.to_thread(broker.start)
        await asyncio.to_thread(cluster.wait_until_registered, broker)
        described = await operator.describe(broker.address)
        assert position <= described.log_durable_position < position + MIB // 4, "it holds that, and what it did since"
        kept = await receive_all(cluster, "audit", "load")
        offsets: defaultdict[int, set[int]] = defaultdict(set)
        for place in kept:
            offsets[place.queue].add(place.offset)
        assert sorted(offsets) == [0, 1, 2, 3]
        for queue in offsets.values():
            assert queue == set(range(min(queue), max(queue) + 1))
        for body, place in sent.items():
            assert kept.get(place) == body or place.offset < min(offsets[place.queue])
        for body, place in load.acknowledged.items():
            assert kept.get(place, body) == body
        again = await receive_all(cluster, "slow", "few", wait_s=SLOW_S)
        assert again.keys() == set(map(Place.of, late)), "what was acknowledged after the backup began comes again"
        # It is a broker as any other.
        async with AsyncProducer(cluster.namesrv) as producer:
            await producer.send(Message("load", b"after"))
        rest = await receive_all(cluster, "simple", "load", wait_s=INVISIBLE_S)
        assert not settled & rest.keys()
        assert b"after" in rest.values()
        assert await operator.lag("simple", "load") == 0


async def test_a_copy_that_breaks_off_says_so(new_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster = new_cluster(namesrvs=1, brokers=1, broker=SMALL)
    [broker] = cluster.brokers
    async with Operator(cluster) as operator:
        await operator.create_topic("bulk")
        await fill(cluster, 12 * MIB)

        interrupted = Command(cluster, tmp_path / "one", rate=1)
        await interrupted.start()
        await interrupted.copying(0)
        refused = await Command(cluster, tmp_path / "two").run(code=1)
        assert "TOO_MANY_REQUESTS" in refused
        assert not (tmp_path / "two.partial").exists()
        interrupted.process.send_signal(signal.SIGINT)
        said = await interrupted.end(INTERRUPTED)
        assert f"NOT complete: {interrupted.partial} holds" in said
        assert not interrupted.output.exists()
        assert "delete it first" in await Command(cluster, tmp_path / "one").run(code=1)
        # The broker has noticed, and makes another one.
        await eventually(lambda: broker.output.count("a backup was not completed"))
        assert "verified" in await Command(cluster, tmp_path / "three").run()
        assert "not empty" in await Command(cluster, tmp_path / "three").run(code=1)

        killed = Command(cluster, tmp_path / "four", rate=2)
        await killed.start()
        await killed.copying(0)
        await asyncio.to_thread(broker.kill)
        said = await killed.end(code=1)
        assert "error: " in said
        assert f"NOT complete: {killed.partial} holds" in said
        assert "Traceback" not in said
        assert not killed.output.exists()


async def test_a_copy_beside_the_original_takes_over_its_name(
    new_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = new_cluster(namesrvs=1, brokers=1, broker={"heartbeat_interval_s": 1})
    [original] = cluster.brokers
    async with Operator(cluster) as operator:
        await operator.create_topic("t", queues=1)
        await operator.create_group("g")
        command = Command(cluster, tmp_path / "backup")
        await command.run()
        copy = BrokerNode("broker-a", tmp_path / "copy", cluster.namesrvs, {"data": command.output})
        try:
            await asyncio.to_thread(copy.start)

            async def original_is_refused() -> bool:
                return "newer start" in (await operator.describe(original.address)).refused_reason

            await eventually(original_is_refused, 30)
            assert not (await operator.describe(copy.address)).refused_reason
            async with AsyncProducer(cluster.namesrv) as producer:
                await producer.send(Message("t", b"x"))
            assert (await operator.describe(copy.address)).stored_messages == 1
        finally:
            copy.dispose()
