"""Sends while retention lets go of a log over 10,000 queues and 1,000 groups, beside the same sends without it."""

from typing import Any

from benchmarks import load_program
from benchmarks.bench import Bench
from benchmarks.echo_server import FRAME_MESSAGES
from benchmarks.figure import Figure
from benchmarks.process import LOAD_CORE, Process
from benchmarks.sends import BATCH
from benchmarks.servers import Broker, Cluster, wait_serving
from benchmarks.streams import run

TOPIC, READ = "bench", "read"
TOPICS = 1250
GROUP = "bench"
GROUPS = 1000
MIB = 1024 * 1024
SEGMENT_BYTES = 16 * MIB
LOG_BYTES = 512 * MIB
KEPT_BYTES = 64 * MIB
SENDS_A_SECOND = 200
LONGEST_S = 0.1
INDEXED_S = 240
"""As in cold.py."""


def retention(bench: Bench) -> list[Figure]:
    with Cluster(bench.folder / "cluster") as cluster:
        cluster.wait_ready()
        broker = cluster.broker
        broker.process.stop()
        _start(broker)
        broker.put_topics([READ, *(f"{TOPIC}-{number:04d}" for number in range(TOPICS))])
        broker.put_groups([f"{GROUP}-{number:04d}" for number in range(GROUPS)])
        _read_by_all(bench, broker)
        while _segments(broker) * SEGMENT_BYTES < LOG_BYTES:
            flags = {"topic": TOPIC, "topics": TOPICS, "batch": BATCH, "messages": 64 * MIB // 1024}
            load_program.run("send", broker.address, bench.folder, **flags)
        broker.process.wait_idle(INDEXED_S)
        beside = _send(bench, broker)
        broker.process.stop()
        _start(broker, "--retention-bytes", str(KEPT_BYTES))
        before = _segments(broker)
        value = _send(bench, broker)
        dropped = before - _segments(broker)
    if dropped < before // 2:
        raise RuntimeError(f"{dropped} of {before} segments were dropped meanwhile: --seconds was too short")
    details = {
        "dropped": f"{dropped} of {before} segments of {SEGMENT_BYTES // MIB} MiB",
        "p50 / p99 / max": _spread(value),
        "without": _spread(beside),
    }
    return [
        Figure.at_most(
            "the slowest send", "ms", value["max"], LONGEST_S * 1000, beside=beside["max"], beside_name="without",
            ratio=value["max"] / beside["max"], details=details,
        )
    ]  # fmt: skip


def _start(broker: Broker, *flags: str) -> None:
    broker.start("--segment-bytes", str(SEGMENT_BYTES), "--retention-interval-s", "1", *flags)
    wait_serving(broker.address, broker.process)


def _read_by_all(bench: Bench, broker: Broker) -> None:
    """Each group reads one frame of a topic, and leaves what it was lent of others."""
    run(bench, "fill", broker.process, broker.address, 8 * FRAME_MESSAGES, topic=READ)
    arguments = (broker.address, READ, GROUP, str(GROUPS), str(FRAME_MESSAGES))
    with Process.python("benchmarks.fan_out_load", *arguments, log=bench.folder / "load.log", core=LOAD_CORE) as load:
        load.output()


def _segments(broker: Broker) -> int:
    return len(list(broker.data.glob("segments/*.segment")))


def _send(bench: Bench, broker: Broker) -> Any:
    seconds = bench.seconds * 2
    flags = {"topic": READ, "rate": SENDS_A_SECOND, "seconds": seconds, "warmup_seconds": 0, "pollers": 0}
    return load_program.run("latency", broker.address, bench.folder, **flags)["send_ms"]


def _spread(times: Any) -> str:
    return f"{times['p50']:.1f} / {times['p99']:.1f} / {times['max']:.1f} ms"
