"""How soon a broker with a log of 2 GB takes messages again after kill -9 under load."""

import time
from pathlib import Path

import grpc

from benchmarks import disk, load_program
from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.servers import READY_TIMEOUT_S, Broker, Cluster, send_one

TOPIC = "bench"
BATCH = 32
LOG_BYTES = 2_000_000_000
MESSAGES_A_STEP = 100_000 // BATCH * BATCH
UNDER_LOAD_S = 1.0


def restart(bench: Bench) -> list[Figure]:
    with Cluster(bench.folder / "cluster") as cluster:
        cluster.wait_ready()
        broker = cluster.broker
        broker.put_topics([TOPIC])
        acknowledged = _fill(bench, broker)
        cached_s = _kill_and_restart(bench, broker)
        disk.forget_cached(broker.data)
        cold_s = _kill_and_restart(bench, broker, forget=broker.data)
        stored = broker.stored_messages(TOPIC)
    if stored < acknowledged:
        raise RuntimeError(f"{acknowledged} messages were acknowledged, but only {stored} are there")
    details = {"log": f"{stored:,} messages, {acknowledged:,} of them acknowledged before the first kill"}
    return [
        Figure.at_most("2 GB, to the first send", "s", cached_s, 5, details=details),
        Figure("the same, not in the page cache", "s", cold_s),
    ]


def _fill(bench: Bench, broker: Broker) -> int:
    """-> how many messages were acknowledged."""
    messages = 0
    while _size_bytes(broker.data) < LOG_BYTES:
        messages += load_program.run(
            "send", broker.address, bench.folder, topic=TOPIC, batch=BATCH, messages=MESSAGES_A_STEP
        )["messages"]
    return messages


def _kill_and_restart(bench: Bench, broker: Broker, forget: Path | None = None) -> float:
    """Seconds from the new process's start to its first acknowledged message."""
    with load_program.start("send", broker.address, bench.folder, topic=TOPIC, batch=BATCH, seconds=60):
        time.sleep(UNDER_LOAD_S)
        broker.process.check_alive()
        broker.process.kill()
    if forget is not None:
        disk.forget_cached(forget)
    began = time.monotonic()
    broker.start()
    while True:
        try:
            send_one(broker.address, TOPIC)
            return time.monotonic() - began
        except grpc.RpcError:
            broker.process.check_alive()
            if time.monotonic() - began > READY_TIMEOUT_S:
                raise
            time.sleep(0.01)


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
