"""Ten million messages that nobody has read: memory while they come, and how fast the oldest of them are consumed."""

from statistics import median
from typing import Any

from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.servers import Broker, Cluster
from benchmarks.streams import cost, run

FRESH, BACKLOG = "fresh", "backlog"
MESSAGES = 10_000_000
STEPS = (1_000_000, 5_000_000, MESSAGES)
BODY_BYTES = 100
A_TURN = 102_400
"""Published and then consumed: less than the part of the log that the broker keeps in memory."""
TURNS_A_ROUND = 4
FLAT_MIB = 32
MIB = 1024 * 1024


def backlog(bench: Bench) -> list[Figure]:
    with Cluster(bench.folder / "cluster") as cluster:
        cluster.wait_ready()
        broker = cluster.broker
        broker.put_topics([FRESH, BACKLOG])
        broker.put_groups([FRESH, *(f"{BACKLOG}-{number}" for number in range(bench.rounds))])
        resident: dict[int, float] = {}
        published = 0
        for step in STEPS:
            published += _run(bench, broker, "fill", BACKLOG, step - published)["messages"]
            resident[step] = broker.process.rss_bytes() / MIB
        fresh: list[Any] = []
        old: list[Any] = []
        for number in range(bench.rounds):
            fresh.append(_fresh(bench, broker))
            amount = A_TURN * TURNS_A_ROUND
            old.append(_run(bench, broker, "consume", BACKLOG, amount, group=f"{BACKLOG}-{number}"))
    grown = resident[MESSAGES] - resident[STEPS[0]]
    steps = ", ".join(f"{mib:.0f} MiB with {step:,}" for step, mib in resident.items())
    return [
        Figure.of_rounds(
            f"consumed from {MESSAGES:,} messages", "messages/s", *(_rates(results) for results in (old, fresh)),
            least=0.9, beside_name="fresh", details={"old": cost(old[-1]), "fresh": cost(fresh[-1])},
        ),
        Figure.at_most("memory from a million to ten", "MiB more", grown, FLAT_MIB, details={"resident": steps}),
    ]  # fmt: skip


def _fresh(bench: Bench, broker: Broker) -> Any:
    """Published and consumed in turn: its result as if it had been in one go."""
    turns: list[Any] = []
    for _ in range(TURNS_A_ROUND):
        _run(bench, broker, "fill", FRESH, A_TURN)
        turns.append(_run(bench, broker, "consume", FRESH, A_TURN, group=FRESH))
    return {name: median(turn[name] for turn in turns) for name in turns[0]}


def _rates(results: list[Any]) -> list[float]:
    return [result["messages_per_s"] for result in results]


def _run(bench: Bench, broker: Broker, mode: str, topic: str, amount: int, group: str = FRESH) -> Any:
    return run(bench, mode, broker.process, broker.address, amount, topic=topic, group=group, body_bytes=BODY_BYTES)
