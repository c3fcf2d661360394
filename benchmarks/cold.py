"""Sends while somebody reads an old backlog that is not in the page cache, beside the same sends alone."""

import contextlib
from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks import disk, load_program
from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.servers import Broker, Cluster
from benchmarks.streams import run, start

TOPIC, OLD = "bench", "old"
BODY_BYTES = 1024
SENDS_A_SECOND = 200
READS_A_SECOND = 20_000
"""20 MiB/s: near to what the broker's core can do, its queue and not the disk would be measured."""
FAST_A_SECOND = 100_000
WARMUP_S = 1
READ_BEFORE_S = 2
"""The longest time for which somebody reads before the sends begin."""
INDEXED_S = 240
"""The longest time for which the indexes of the old messages are waited for, which the broker builds in between."""
ALL = 1 << 40


def cold(bench: Bench) -> list[Figure]:
    with Cluster(bench.folder / "cluster") as cluster:
        cluster.wait_ready()
        broker = cluster.broker
        broker.put_topics([TOPIC, OLD])
        amount = FAST_A_SECOND * (bench.seconds + WARMUP_S + READ_BEFORE_S)
        run(bench, "fill", broker.process, broker.address, amount, topic=OLD, body_bytes=BODY_BYTES)
        broker.process.wait_idle(INDEXED_S)
        rounds: list[dict[str, Any]] = []
        for number in range(bench.rounds):
            times = {"alone": _send(bench, broker)}
            for kind, rate in (("page cache", READS_A_SECOND), ("disk", READS_A_SECOND), ("disk, fast", FAST_A_SECOND)):
                group = f"{kind.replace(', ', '-').replace(' ', '-')}-{number}"
                broker.put_group(group)
                if kind != "page cache":
                    disk.forget_cached(broker.data)
                with _reading(bench, broker, group, rate):
                    times[kind] = _send(bench, broker)
            rounds.append(times)
    return [
        _compare(rounds, "disk", f"while {READS_A_SECOND:,} a second are read from the disk", most=2),
        _compare(rounds, "page cache", "the same from the page cache", most=None),
        _compare(rounds, "disk, fast", f"{FAST_A_SECOND:,} a second from the disk", most=None),
    ]


def _compare(rounds: list[dict[str, Any]], kind: str, name: str, *, most: float | None) -> Figure:
    values, besides = ([times[which]["p99"] for times in rounds] for which in (kind, "alone"))
    ratio = median(value / beside for value, beside in zip(values, besides, strict=True))
    return Figure(
        f"99 % of sends, {name}", "ms", median(values), median(besides), "alone", ratio,
        target="" if most is None else f"at most {most:.0%}",
        met=None if most is None else ratio <= most,
        details={"last round, p50 / p99 / max": _spread(rounds[-1][kind]), "alone": _spread(rounds[-1]["alone"])},
    )  # fmt: skip


def _spread(times: Any) -> str:
    return f"{times['p50']:.1f} / {times['p99']:.1f} / {times['max']:.1f} ms"


def _send(bench: Bench, broker: Broker) -> Any:
    flags = {"topic": TOPIC, "rate": SENDS_A_SECOND, "seconds": bench.seconds, "warmup_seconds": WARMUP_S, "pollers": 0}
    return load_program.run("latency", broker.address, bench.folder, **flags)["send_ms"]


@contextlib.contextmanager
def _reading(bench: Bench, broker: Broker, group: str, rate: int) -> Iterator[None]:
    """rate: messages a second."""
    with start(bench, "consume", broker.address, ALL, topic=OLD, group=group, rate=rate) as load:
        yield
        load.check_alive()
