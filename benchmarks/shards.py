"""Two brokers beside one, on the same core: what a message costs must not grow with the shards of a cluster."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks.bench import Bench
from benchmarks.echo_server import FRAME_MESSAGES
from benchmarks.figure import Figure
from benchmarks.servers import Broker, Cluster, wait_serving
from benchmarks.streams import start

TOPIC = "bench"
GROUP = "bench"
FRAMES_A_SECOND = 300
"""About, so that a measurement takes as long as is asked for on a slow machine."""
MOST = 1.1


def shards(bench: Bench) -> list[Figure]:
    messages = int(bench.seconds * FRAMES_A_SECOND) * 2 * FRAME_MESSAGES
    with Cluster(bench.folder / "one") as one, Cluster(bench.folder / "two") as two:
        several = [two.broker, two.add_broker("broker-2")]
        for cluster in (one, two):
            cluster.wait_ready()
        for broker in (one.broker, *several):
            wait_serving(broker.address, broker.process)
            broker.put_topics([TOPIC])
            broker.put_group(GROUP)
        costs: dict[str, list[tuple[float, float]]] = {"fill": [], "consume": []}
        for _ in range(bench.rounds):
            for mode, results in costs.items():
                results.append((_cost(bench, mode, several, messages), _cost(bench, mode, [one.broker], messages)))
    names = {"fill": "a message published", "consume": "a message consumed and acknowledged"}
    return [_figure(names[mode], results) for mode, results in costs.items()]


def _figure(name: str, results: Sequence[tuple[float, float]]) -> Figure:
    ratio = median(two / one for two, one in results)
    two_us, one_us = (median(column) for column in zip(*results, strict=True))
    return Figure(
        f"{name}, two brokers", "us of CPU", two_us, one_us, "one", ratio,
        target=f"at most {MOST:.0%}", met=ratio <= MOST,
    )  # fmt: skip


def _cost(bench: Bench, mode: str, brokers: Sequence[Broker], messages: int) -> float:
    """CPU time a message (us) when so many go to all the brokers together, in equal parts and at once."""
    before_s = sum(broker.process.cpu_s() for broker in brokers)
    with ExitStack() as stack:
        loads = [
            stack.enter_context(start(bench, mode, broker.address, messages // len(brokers))) for broker in brokers
        ]
        results: list[Any] = [json.loads(load.output()) for load in loads]
    used_s = sum(broker.process.cpu_s() for broker in brokers) - before_s
    return used_s * 1e6 / sum(result["messages"] for result in results)
