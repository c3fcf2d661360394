"""Draining a backlog: received 32 a call, acknowledged together or one by one."""

from typing import Any

from benchmarks import load_program
from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.servers import Cluster, echo_server

TOPIC = "bench"
GROUP = "bench"
BATCH = 32
IN_FLIGHT = 16
MESSAGES_A_SECOND = {True: 20_000, False: 6_000}
"""About what is drained, acknowledged together or one by one: it sets the size of the backlog."""


def receive_and_ack(bench: Bench) -> list[Figure]:
    with echo_server(bench.folder) as (_, echo_address), Cluster(bench.folder / "cluster") as cluster:
        cluster.wait_ready()
        cluster.broker.put_topics([TOPIC])
        cluster.broker.put_group(GROUP)
        return [
            _compare(bench, cluster, echo_address, "acknowledged 32 a call", ack_batch=True),
            _compare(bench, cluster, echo_address, "acknowledged one by one", ack_batch=False),
        ]


def _compare(bench: Bench, cluster: Cluster, echo_address: str, name: str, *, ack_batch: bool) -> Figure:
    backlog = int(bench.seconds * MESSAGES_A_SECOND[ack_batch]) // BATCH * BATCH
    values: list[float] = []
    besides: list[float] = []
    details: dict[str, Any] = {}
    for _ in range(bench.rounds):
        besides.append(_drain(bench, echo_address, backlog, ack_batch=ack_batch)["messages_per_s"])
        load_program.run("send", cluster.broker.address, bench.folder, topic=TOPIC, batch=BATCH, messages=backlog)
        result = _drain(bench, cluster.broker.address, backlog, ack_batch=ack_batch)
        if result["duplicates"]:
            raise RuntimeError(f"{result['duplicates']} of {backlog} messages came twice")
        values.append(result["messages_per_s"])
        receive, ack = result["receive_ms"], result["ack_ms"]
        details = {
            "broker": f"a receive takes {receive['p50']:.1f} ms, 99th percentile {receive['p99']:.1f}; "
            f"an ack {ack['p50']:.1f} and {ack['p99']:.1f}; load {result['cpu_share']:.0%} of its core"
        }
    return Figure.of_rounds(name, "messages/s", values, besides, least=None, details=details)


def _drain(bench: Bench, address: str, messages: int, *, ack_batch: bool) -> Any:
    return load_program.run(
        "receive", address, bench.folder,
        topic=TOPIC, group=GROUP, batch=BATCH, in_flight=IN_FLIGHT, messages=messages, ack_batch=ack_batch,
    )  # fmt: skip
