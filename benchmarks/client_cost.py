"""What the Python library costs its application: CPU time of the client's process for a message, by the way it is used.

    python -m benchmarks.client_cost [--door rocketmq] [--body-bytes 1024] [--messages 100000] [--rounds 3]

NameServer and broker run pinned to one core, the client on another. Beside it stands what a fixed piece of Python took
in the same round, for machines swing. Run by hand; the figures are in benchmarks/README.md.
"""

import asyncio
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.process import LOAD_CORE
from benchmarks.servers import Cluster
from kourou import AsyncProducer, AsyncPushConsumer, AsyncSimpleConsumer, Message, Producer, ReceivedMessage
from kourou.doors import Door

TOPIC = "cost"
RECEIVE_COUNT = 2000
TIMEOUT_S = 60.0
_FIXED_LOOPS = 1_000_000

Work = Callable[[], Awaitable[int]]
"""Returns how many messages it was for."""


class Costs:
    """Of ways to use the library, over several rounds."""

    def __init__(self) -> None:
        self.cpu_us: defaultdict[str, list[float]] = defaultdict(list)
        self.rates: defaultdict[str, list[float]] = defaultdict(list)

    async def take(self, name: str, work: Work) -> None:
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        count = await work()
        cpu_s, wall_s = time.process_time() - started_cpu_s, time.perf_counter() - started_s
        self.cpu_us[name].append(cpu_s / count * 1e6)
        self.rates[name].append(count / wall_s)


async def sending(costs: Costs, namesrv: str, door: Door, body: bytes, count: int) -> None:
    async def make() -> int:
        for _ in range(count):
            Message(TOPIC, body)
        return count

    await costs.take("Message(topic, body)", make)
    messages = [Message(TOPIC, body) for _ in range(count)]
    some = messages[: count // 4]
    async with AsyncProducer(namesrv, door=door, topics=[TOPIC]) as producer:
        await producer.send_many(messages[:1000], timeout_s=TIMEOUT_S)

        async def send_many() -> int:
            return len(await producer.send_many(messages, timeout_s=TIMEOUT_S))

        async def send() -> int:
            """Begun in portions, as by tasks of a server, and awaited."""
            for start in range(0, len(some), 1000):
                for sent in [producer.send(message, timeout_s=TIMEOUT_S) for message in some[start : start + 1000]]:
                    await sent
            return len(some)

        async def send_soon() -> int:
            for sent in [await producer.send_soon(message, timeout_s=TIMEOUT_S) for message in some]:
                await sent
            return len(some)

        await costs.take("send_many", send_many)
        await costs.take("send, 1000 at a time", send)
        await costs.take("send_soon", send_soon)

    def from_a_thread() -> int:
        with Producer(namesrv, door=door, topics=[TOPIC]) as blocking:
            for sent in [blocking.send_soon(message, timeout_s=TIMEOUT_S) for message in some]:
                sent.result()
        return len(some)

    await costs.take("send_soon, blocking class", lambda: asyncio.to_thread(from_a_thread))


async def consuming(costs: Costs, cluster: Cluster, door: Door, count: int, number: int) -> None:
    namesrv = cluster.access_point

    async def consume(name: str, listener: Callable[[Callable[[int], None]], dict[str, Any]]) -> None:
        group = f"group-{number}-{name.split()[0].strip(',')}"
        cluster.broker.put_group(group)
        done = asyncio.Event()
        heard = 0

        def hear(more: int) -> None:
            nonlocal heard
            heard += more
            if heard >= count:
                done.set()

        async def work() -> int:
            consumer = AsyncPushConsumer(group, {TOPIC: "*"}, namesrv=namesrv, door=door, **listener(hear))
            async with consumer:
                await done.wait()
            return heard

        await costs.take(name, work)

    await consume("batch listener", _batch_listener)
    await consume("listener, a coroutine function", _listener)
    cluster.broker.put_group(f"simple-{number}")
    async with AsyncSimpleConsumer(f"simple-{number}", {TOPIC: "*"}, namesrv, door=door) as consumer:

        async def receive() -> int:
            got = 0
            while got < count:
                messages = await consumer.receive(RECEIVE_COUNT if door == "stream" else 32, wait_s=5)
                await consumer.ack(messages)
                got += len(messages)
            return got

        await costs.take("receive and ack", receive)


def _batch_listener(hear: Callable[[int], None]) -> dict[str, Any]:
    async def listener(messages: list[ReceivedMessage]) -> None:
        for message in messages:
            _ = message.body
        hear(len(messages))

    return {"batch_listener": listener}


def _listener(hear: Callable[[int], None]) -> dict[str, Any]:
    async def listener(message: ReceivedMessage) -> None:
        _ = message.body
        hear(1)

    return {"listener": listener}


async def _fixed_work() -> int:
    total = 0
    for number in range(_FIXED_LOOPS):
        total += number & 7
    return _FIXED_LOOPS


async def measure(cluster: Cluster, door: Door, body: bytes, count: int, rounds: int) -> Costs:
    costs = Costs()
    for number in range(rounds):
        await costs.take("a fixed loop of Python", _fixed_work)
        await sending(costs, cluster.access_point, door, body, count)
        await consuming(costs, cluster, door, count, number)
    return costs


def main(
    door: Annotated[str, typer.Option(help="stream or rocketmq.")] = "stream",
    body_bytes: Annotated[int, typer.Option(min=1)] = 1024,
    messages: Annotated[int, typer.Option(min=4000)] = 100_000,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    data: Annotated[Path, typer.Option(help="A new folder in it is used and removed.")] = Path("build"),
) -> None:
    """Measures the library against a broker of its own."""
    data.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="client-cost-", dir=data.resolve()))
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        with Cluster(folder / "cluster") as cluster:
            cluster.wait_ready()
            cluster.broker.put_topics([TOPIC])
            chosen: Door = "rocketmq" if door == "rocketmq" else "stream"
            costs = asyncio.run(measure(cluster, chosen, os.urandom(body_bytes), messages, rounds))
    finally:
        shutil.rmtree(folder)
    table = Table(title=f"{door} door, {body_bytes} bytes", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("", "us of CPU a message", "least", "messages/s"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, cpu_us in costs.cpu_us.items():
        rate = f"{median(costs.rates[name]):,.0f}"
        table.add_row(name, f"{median(cpu_us):.2f}", f"{min(cpu_us):.2f}", rate)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
