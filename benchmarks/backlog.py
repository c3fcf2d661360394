"""Ten million messages that nobody has read: memory while they come, and how fast the oldest of them are consumed."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.servers import Broker, Cluster
from benchmarks.stream_load import topic_names
from benchmarks.streams import cost, run

FRESH, BACKLOG, GROUP = "fresh", "backlog", "bench"
MESSAGES = 10_000_000
STEPS = (1_000_000, 5_000_000, MESSAGES)
BODY_BYTES = 100
A_TURN = 102_400
"""Published and then consumed: less than the part of the log that the broker keeps in memory."""
TURNS_A_ROUND = 2
FLAT_MIB = 32
MIB = 1024 * 1024


def backlog(bench: Bench) -> list[Figure]:
    with Cluster(bench.folder / "cluster") as cluster:
        cluster.wait_ready()
        broker = cluster.broker
        backlogs = topic_names(BACKLOG, bench.rounds * TURNS_A_ROUND + 1)
        broker.put_topics([FRESH, *backlogs])
        broker.put_group(GROUP)
        resident: dict[int, float] = {}
        published = 0
        for step in STEPS:
            published += _run(bench, broker, "fill", BACKLOG, step - published, topics=len(backlogs))["messages"]
            resident[step] = broker.process.rss_bytes() / MIB
        fresh: list[Any] = []
        old: list[Any] = []
        for number in range(bench.rounds):
            fresh.append(_in_turns(bench, broker, [FRESH] * TURNS_A_ROUND))
            first = number * TURNS_A_ROUND
            old.append(_in_turns(bench, broker, backlogs[first : first + TURNS_A_ROUND]))
    grown = resident[MESSAGES] - resident[STEPS[0]]
    steps = ", ".join(f"{mib:.0f} MiB with {step:,}" for step, mib in resident.items())
    return [
        Figure.of_rounds(
            f"consumed from {MESSAGES:,} messages", "messages/s", *(_rates(results) for results in (old, fresh)),
            least=0.9, beside_name="fresh", details={"old": cost(old[-1]), "fresh": cost(fresh[-1])},
        ),
        Figure.at_most("memory from a million to ten", "MiB more", grown, FLAT_MIB, details={"resident": steps}),
    ]  # fmt: skip


def _in_turns(bench: Bench, broker: Broker, topics: Sequence[str]) -> Any:
    """The median of turns, each with another topic; what is fresh is published right before."""
    turns: list[Any] = []
    for topic in topics:
        if topic == FRESH:
            _run(bench, broker, "fill", topic, A_TURN)
        turns.append(_run(bench, broker, "consume", topic, A_TURN))
    return {name: median(turn[name] for turn in turns) for name in turns[0]}


def _rates(results: list[Any]) -> list[float]:
    return [result["messages_per_s"] for result in results]


def _run(bench: Bench, broker: Broker, mode: str, topic: str, amount: int, **flags: object) -> Any:
    server = (broker.process, broker.address)
    return run(bench, mode, *server, amount, topic=topic, group=GROUP, body_bytes=BODY_BYTES, **flags)
