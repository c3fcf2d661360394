"""A whole cluster in one process: two NameServers, two brokers, and our client library, through crashes and cuts.

python -m tests.simulation.test_broker_cluster --seed 4711 --door stream
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, get_args

import pytest
import structlog

from kourou import (
    AsyncProducer,
    AsyncPushConsumer,
    AsyncSimpleConsumer,
    KourouError,
    Message,
    PartialFailure,
    ReceivedMessage,
    SendResult,
)
from kourou.doors import Door
from kourou.protocol.kourou.log.v1 import record_pb2
from tests.simulation.broker_cluster import BrokerMachine, seeded
from tests.simulation.cluster import group_definition, topic_definition
from tests.simulation.namesrv_cluster import CLIENTS_PORT, SimulatedNamesrv
from tests.simulation.network import Network, resolve_within
from tests.simulation.time import simulate

DOORS: tuple[Door, ...] = get_args(Door)
SEEDS = 8
SEEDS_A_TEST = 4
SAME_ORDER = {"PYTHONHASHSEED": "0"}
"""The order of sets of strings, which is the interpreter's, is part of what a seed decides."""
NAMESRVS = ("namesrv-1", "namesrv-2")
LASTS_S = 60.0


class Place(NamedTuple):
    broker: str
    queue: int
    offset: int


class Cluster:
    def __init__(self, seed: int, door: Door) -> None:
        self.door: Door = door
        self.rng = rng = random.Random(seed)
        self.network = Network(seed)
        self.namesrvs = [SimulatedNamesrv(self.network, name) for name in NAMESRVS]
        self.brokers = [BrokerMachine(self.network, name, rng, NAMESRVS) for name in ("broker-a", "broker-b")]
        self.confirmed: set[bytes] = set()
        self.received: defaultdict[str, set[bytes]] = defaultdict(set)
        self.acknowledged: set[Place] = set()
        self.sending = True
        self.over = asyncio.Event()
        self.counts: Counter[str] = Counter()

    async def start(self) -> None:
        for namesrv in self.namesrvs:
            await namesrv.start()
        for broker in self.brokers:
            await broker.start()
            broker.core.definitions.put_topic(topic_definition("orders", 3))
            for group in ("simple", "push"):
                broker.core.definitions.put_group(
                    group_definition(group, assignment=record_pb2.ASSIGNMENT_EXCLUSIVE, backoff_s=[1])
                )
            await broker.core.journal.durable()

    def options(self, name: str) -> dict[str, Any]:
        addresses = [f"{namesrv}:{CLIENTS_PORT}" for namesrv in NAMESRVS]
        transport = self.network.node(name).transport()
        return {"namesrv": addresses, "transport": transport, "client_id": name, "door": self.door}

    async def produce(self, name: str) -> None:
        async with AsyncProducer(send_timeout_s=5, **self.options(name)) as producer:
            number = 0
            while self.sending:
                number += 1
                bodies = [f"{name}-{number}-{part}".encode() for part in range(self.rng.choice((1, 1, 1, 5, 300)))]
                messages = [Message("orders", body) for body in bodies]
                try:
                    outcomes = await (producer.send_many(messages) if bodies[1:] else _alone(producer, messages[0]))
                except PartialFailure as partly:
                    outcomes = partly.outcomes
                except KourouError as problem:
                    outcomes = [problem]
                for body, outcome in zip(bodies, outcomes, strict=False):
                    if isinstance(outcome, SendResult):
                        self.confirmed.add(body)
                    else:
                        self.counts[type(outcome).__name__] += 1
                await asyncio.sleep(self.rng.random() * 0.5)

    async def consume(self, name: str) -> None:
        """Some messages are let go, and come again."""
        async with AsyncSimpleConsumer("simple", {"orders": "*"}, **self.options(name)) as consumer:
            while not self.over.is_set():
                try:
                    messages = await consumer.receive(1000, invisible_duration_s=5, wait_s=2)
                except KourouError as problem:
                    self.counts[type(problem).__name__] += 1
                    await asyncio.sleep(0.5)
                    continue
                self._check_new(messages)
                kept = [message for message in messages if self.sending and self.rng.random() < 0.1]
                acked = [message for message in messages if message not in kept]
                try:
                    await consumer.ack(acked)
                    self.acknowledged.update(map(_place, acked))
                except KourouError as problem:
                    self.counts[type(problem).__name__] += 1

    def _check_new(self, messages: list[ReceivedMessage]) -> None:
        for message in messages:
            assert _place(message) not in self.acknowledged, f"{message} came after its acknowledgement was confirmed"
            self.received["simple"].add(message.body)

    async def listen(self, name: str) -> None:
        async def listener(message: ReceivedMessage) -> bool:
            if self.sending and self.rng.random() < 0.1:
                return False
            self.received["push"].add(message.body)
            return True

        async with AsyncPushConsumer("push", {"orders": "*"}, listener, **self.options(name)):
            await self.over.wait()

    async def chaos(self) -> None:
        ends_s = asyncio.get_running_loop().time() + LASTS_S
        while asyncio.get_running_loop().time() < ends_s:
            await asyncio.sleep(self.rng.random() * 8)
            blow = self.rng.choice((self._kill_broker, self._kill_broker, self._restart_namesrv, self._cut))
            self.counts[blow.__name__] += 1
            await blow()
        self.network.heal_all()

    async def _kill_broker(self) -> None:
        broker = self.rng.choice(self.brokers)
        if self.rng.random() < 0.5:
            broker.shard.kill()
        else:
            broker.shard.cut_power()
        await asyncio.sleep(self.rng.random() * 5)
        await broker.start()

    async def _restart_namesrv(self) -> None:
        namesrv = self.rng.choice(self.namesrvs)
        namesrv.node.kill()
        await asyncio.sleep(self.rng.random() * 5)
        await namesrv.start()

    async def _cut(self) -> None:
        one, other = self.rng.sample(["broker-a", "broker-b", *NAMESRVS, "producer-1", "simple-1", "push-1"], 2)
        self.network.cut(one, other)
        await asyncio.sleep(self.rng.random() * 20)
        self.network.heal(one, other)

    def missing(self) -> dict[str, set[bytes]]:
        return {group: self.confirmed - self.received[group] for group in ("simple", "push")}


async def _alone(producer: AsyncProducer, message: Message) -> Sequence[object]:
    return [await producer.send(message)]


def _place(message: ReceivedMessage) -> Place:
    return Place(message.broker, message.queue_id, message.offset)


async def run(seed: int, door: Door) -> Counter[str]:
    cluster = Cluster(seed, door)
    resolve_within(cluster.network)
    await cluster.start()
    producers = [cluster.produce(f"producer-{number}") for number in (1, 2)]
    consumers = [
        *(cluster.consume(f"simple-{number}") for number in (1, 2)),
        *(cluster.listen(f"push-{number}") for number in (1, 2)),
    ]
    async with asyncio.TaskGroup() as group:
        for each in (*producers, *consumers):
            group.create_task(each)
        await cluster.chaos()
        cluster.sending = False
        await _until(lambda: not any(cluster.missing().values()), 300, cluster.missing)
        await asyncio.sleep(30)
        cluster.over.set()
    cluster.counts["confirmed"] = len(cluster.confirmed)
    assert len(cluster.confirmed) > 20
    return cluster.counts


async def _until(condition: Callable[[], bool | Awaitable[bool]], within_s: float, what: Callable[[], Any]) -> None:
    ends_s = asyncio.get_running_loop().time() + within_s
    while not condition():
        assert asyncio.get_running_loop().time() < ends_s, f"after {within_s} s: {what()}"
        await asyncio.sleep(0.5)


def check(seed: int, door: Door) -> Counter[str]:
    with structlog.testing.capture_logs() as logs, seeded(seed):
        counts = simulate(run(seed, door))
    faults = [entry for entry in logs if entry["log_level"] in ("error", "critical")]
    assert not faults, faults
    return counts


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_A_TEST))
def test_what_a_producer_got_confirmed_reaches_every_group(first: int, door: Door) -> None:
    """In a process of its own, so that a seed that failed replays exactly."""
    command = [sys.executable, "-m", __name__, "--seed", str(first), "--seeds", str(SEEDS_A_TEST), "--door", door]
    done = subprocess.run(command, env={**os.environ, **SAME_ORDER}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--door", choices=DOORS, default=DOORS[0])
    asked = options.parse_args()
    for seed in range(asked.seed, asked.seed + asked.seeds):
        print(f"--seed {seed} --door {asked.door}", flush=True)
        print(dict(check(seed, asked.door)))


if __name__ == "__main__":
    if not os.environ.keys() >= SAME_ORDER.keys():
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation.test_broker_cluster", *sys.argv[1:]],
            {**os.environ, **SAME_ORDER},
        )
    main()
