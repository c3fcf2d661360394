"""What Kourou shall reach beside the others (the table of issue 7), and whether it did."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.rivals.results import BODY_BYTES, Results

STREAM, COMPATIBLE = "kourou-sync-stream", "kourou-sync-rocketmq"
ASYNC_STREAM = "kourou-async-stream"


@dataclass(frozen=True)
class Target:
    text: str
    ours: str
    measure: str
    value: str
    bound: float
    """Of the value, or of its ratio to `other`'s."""
    other: str = ""
    at_most: bool = False
    """Else at least."""


@dataclass(frozen=True)
class Verdict:
    target: Target
    measured: float | None
    """None: one of the two was not measured."""
    least: float | None = None
    most: float | None = None
    """Over the rounds."""

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured <= self.target.bound if self.target.at_most else self.measured >= self.target.bound


_PUBLISH = ("publish", "per_s")
_CONSUME = ("consume", "per_s")


def _rates() -> Iterator[Target]:
    yield Target("publish, stream door: 100,000/s", STREAM, *_PUBLISH, 100_000)
    yield Target("publish, stream door: Kafka that flushes", STREAM, *_PUBLISH, 1, "kafka-flush")
    yield Target("publish, stream door: Kafka, at last", STREAM, *_PUBLISH, 1, "kafka-default")
    yield Target("publish, stream door: 10 x RocketMQ", STREAM, *_PUBLISH, 10, "rocketmq-async")
    yield Target("consume + ack, stream door: 150,000/s", STREAM, *_CONSUME, 150_000)
    yield Target("consume + ack, stream door: Kafka, at last", STREAM, *_CONSUME, 1, "kafka-default")


def _compatible_door() -> Iterator[Target]:
    for measure, name, least, least_sync in (
        ("unary", "one a call", 1.5, 3),
        ("batched", "32 a call", 1.5, 3),
        ("batched", "32 a call, at last", 2, 3),
    ):
        yield Target(f"compatible door, {name}: RocketMQ", COMPATIBLE, measure, "per_s", least, "rocketmq-async")
        if not name.endswith("at last"):
            text = f"compatible door, {name}: RocketMQ, SYNC_FLUSH"
            yield Target(text, COMPATIBLE, measure, "per_s", least_sync, "rocketmq-sync")
    yield Target("compatible door, receive + ack: RocketMQ", COMPATIBLE, "receive", "per_s", 2, "rocketmq-async")


def _costs() -> Iterator[Target]:
    cpu = ("publish", "server_cpu_s_per_million")
    yield Target("server CPU a million, stream door: Kafka", STREAM, *cpu, 1, "kafka-default", at_most=True)
    memory = ("memory", "most_own_mib")
    yield Target("server memory: 1/8 of RocketMQ", STREAM, *memory, 1 / 8, "rocketmq-async", at_most=True)


def _latencies() -> Iterator[Target]:
    for value, name in (("p50_ms", "50 %"), ("p99_ms", "99 %")):
        pairs = (
            ("stream door: half of RocketMQ", STREAM, "latency", 0.5, "rocketmq-async"),
            ("compatible door: half of RocketMQ", COMPATIBLE, "latency", 0.5, "rocketmq-async"),
            ("compatible door, load program: half of RocketMQ", COMPATIBLE, "compiled_latency", 0.5, "rocketmq-async"),
            ("stream door: Kafka that flushes", STREAM, "latency", 1, "kafka-flush"),
            ("asynchronous, stream door: Kafka", ASYNC_STREAM, "latency", 1, "kafka-default"),
        )
        for text, ours, measure, bound, other in pairs:
            yield Target(f"latency at 100/s, {name}, {text}", ours, measure, value, bound, other, at_most=True)
        text = f"one at a time, {name}, stream door: NATS that syncs"
        yield Target(text, STREAM, "one", value, 1, "nats-sync", at_most=True)


TARGETS = (*_rates(), *_costs(), *_compatible_door(), *_latencies())
NOT_MEASURED = "bytes by the stream door, beside the bare engine's stream: not measured here"


def verdicts(results: Results) -> list[Verdict]:
    found: list[Verdict] = []
    for target in TARGETS:
        key = (target.measure, target.value, BODY_BYTES)
        other = target.other
        spread = results.ratio(target.ours, other, *key) if other else results.spread(target.ours, *key)
        found.append(Verdict(target, spread.median, spread.least, spread.most) if spread else Verdict(target, None))
    return found
