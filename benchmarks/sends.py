"""Sends, one message a call and 32 a call: the broker and the bare echo in turn."""

from typing import Any

from benchmarks import load_program
from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.process import Process
from benchmarks.servers import Cluster, echo_server

TOPIC = "bench"
IN_FLIGHT = 64
BATCH = 32
WARMUP_S = 1.0


def unary(bench: Bench) -> list[Figure]:
    return [_compare(bench, "one message a call", batch=1, least=0.6)]


def batched(bench: Bench) -> list[Figure]:
    return [_compare(bench, "32 messages a call", batch=BATCH, least=0.3)]


def _compare(bench: Bench, name: str, *, batch: int, least: float) -> Figure:
    with echo_server(bench.folder) as (echo, echo_address), Cluster(bench.folder / "cluster") as cluster:
        cluster.wait_ready()
        cluster.broker.put_topics([TOPIC])
        values: list[float] = []
        besides: list[float] = []
        details: dict[str, Any] = {}
        for _ in range(bench.rounds):
            beside = send(bench, echo, echo_address, batch=batch)
            value = send(bench, cluster.broker.process, cluster.broker.address, batch=batch)
            besides.append(beside["messages_per_s"])
            values.append(value["messages_per_s"])
            details = {"broker": cost(value), "bare echo": cost(beside)}
    return Figure.of_rounds(name, "messages/s", values, besides, least=least, details=details)


def send(bench: Bench, server: Process, address: str, *, topic: str = TOPIC, topics: int = 1, batch: int = 1) -> Any:
    """The load program's result, with the server's share of its core and its CPU time a message (us)."""
    cpu_s = server.cpu_s()
    result = load_program.run(
        "send", address, bench.folder,
        topic=topic, topics=topics, batch=batch, in_flight=IN_FLIGHT, seconds=bench.seconds, warmup_seconds=WARMUP_S,
    )  # fmt: skip
    cpu_s = server.cpu_s() - cpu_s
    result["server_cpu_share"] = cpu_s / (bench.seconds + WARMUP_S)
    result["server_cpu_us"] = cpu_s * 1e6 / result["sent_with_warmup"]
    return result


def cost(result: Any) -> str:
    """One line that tells whether the server was what limited the rate."""
    latency = result["latency_ms"]
    return (
        f"{result['server_cpu_us']:.1f} us of CPU a message, {result['server_cpu_share']:.0%} of its core, "
        f"load {result['cpu_share']:.0%} of its own; "
        f"a call takes {latency['p50']:.1f} ms, 99th percentile {latency['p99']:.1f}"
    )
