"""What 1,250 topics of 8 queues cost when sends go to all of them, by both doors, against a broker that has one."""

from typing import Any

from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.sends import BATCH, cost, send
from benchmarks.servers import Cluster
from benchmarks.streams import cost as stream_cost
from benchmarks.streams import run

TOPIC = "bench"
TOPICS = 1250


def many_topics(bench: Bench) -> list[Figure]:
    with Cluster(bench.folder / "one") as one, Cluster(bench.folder / "many") as many:
        one.wait_ready()
        many.wait_ready()
        one.broker.put_topics([TOPIC])
        many.broker.put_topics([f"{TOPIC}-{number:04d}" for number in range(TOPICS)])
        return [
            _compare(bench, one, many, "one message a call", batch=1),
            _compare(bench, one, many, "32 messages a call", batch=BATCH),
            _compare_streams(bench, one, many),
        ]


def _compare(bench: Bench, one: Cluster, many: Cluster, name: str, *, batch: int) -> Figure:
    values: list[float] = []
    besides: list[float] = []
    details: dict[str, Any] = {}
    for _ in range(bench.rounds):
        beside = send(bench, one.broker.process, one.broker.address, batch=batch)
        value = send(bench, many.broker.process, many.broker.address, topics=TOPICS, batch=batch)
        besides.append(beside["messages_per_s"])
        values.append(value["messages_per_s"])
        details = {"over all": cost(value), "one topic": cost(beside)}
    return Figure.of_rounds(name, "messages/s", values, besides, least=0.8, beside_name="one topic", details=details)


def _compare_streams(bench: Bench, one: Cluster, many: Cluster) -> Figure:
    """Batches of 256, each to another topic."""
    results: list[tuple[Any, Any]] = []
    for _ in range(bench.rounds):
        beside = run(bench, "publish", one.broker.process, one.broker.address, bench.seconds)
        value = run(bench, "publish", many.broker.process, many.broker.address, bench.seconds, topics=TOPICS)
        results.append((value, beside))
    values, besides = ([result["messages_per_s"] for result in column] for column in zip(*results, strict=True))
    value, beside = results[-1]
    return Figure.of_rounds(
        "stream door, 256 a frame", "messages/s", values, besides, least=0.8, beside_name="one topic",
        details={"over all": stream_cost(value), "one topic": stream_cost(beside)},
    )  # fmt: skip
