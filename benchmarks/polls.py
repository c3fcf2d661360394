"""What consumers cost that only wait: ten thousand long polls of a hundred clients, and a hundred Consume streams."""

import json
import time

from benchmarks import load_program
from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.process import LOAD_CORE, Process
from benchmarks.servers import QUEUES, Cluster
from kourou.protocol.kourou.log.v1 import record_pb2

TOPIC = "bench"
TOPICS = 1250
GROUP = "bench"
SHARED_GROUP = "shared"
POLLS = TOPICS * QUEUES
CLIENTS = 100
STREAMS = 100
POLL_S = 20.0
LONG_POLL_S = 45.0
"""Longer than all polls take to begin and the measurement takes, so that none ends in it."""
BEGIN_S = 10.0
IDLE_S = 10.0
LONGEST_S = LONG_POLL_S - BEGIN_S - 5


def polls(bench: Bench) -> list[Figure]:
    window_s = max(POLL_S, bench.seconds * 4)
    with Cluster(bench.folder / "cluster") as cluster:
        cluster.wait_ready()
        broker = cluster.broker
        broker.put_topics([TOPIC, *(f"{TOPIC}-{number:04d}" for number in range(TOPICS))])
        groups = [f"{GROUP}-{number:04d}" for number in range(CLIENTS)]
        broker.put_groups(groups, record_pb2.ASSIGNMENT_EXCLUSIVE)
        broker.put_group(SHARED_GROUP)
        time.sleep(BEGIN_S)  # what ten thousand queues leave to be done is done
        before = broker.process.rss_bytes()
        idle = _share(broker.process, IDLE_S)
        each = {"topic": TOPIC, "topics": TOPICS, "queues": QUEUES, "group": GROUP, "groups": CLIENTS}
        parked, grown = _parked(bench, broker.process, broker.address, before, each)
        renewed = _renewed(bench, broker.process, broker.address, window_s, each)
        together = _renewed(bench, broker.process, broker.address, window_s, {"topic": TOPIC, "group": SHARED_GROUP})
        streams = _streams(bench, broker.process, broker.address)
    seen = {"idle": f"{idle:.2f} % of a core with {POLLS:,} queues and no poll"}
    return [
        Figure.at_most(f"{POLLS:,} polls, one a queue, each {POLL_S:.0f} s", "% of a core", renewed, 10, details=seen),
        Figure.at_most(f"{POLLS:,} polls of one topic, each {POLL_S:.0f} s", "% of a core", together, 10),
        Figure.at_most(f"{POLLS:,} polls that wait", "% of a core", parked, 1, beside=idle, beside_name="none"),
        Figure("memory of a poll", "KiB", grown / POLLS / 1024),
        Figure.at_most(
            f"{STREAMS} Consume streams that wait", "% of a core", streams, 1, beside=idle, beside_name="none"
        ),
    ]


def _parked(bench: Bench, broker: Process, address: str, before: int, layout: dict[str, object]) -> tuple[float, int]:
    """-> share of a core while no poll ends (%), memory that they take (bytes)."""
    seconds = min(POLL_S, LONGEST_S)
    with _start(bench, address, seconds, LONG_POLL_S, layout) as load:
        load.next_line()
        share, grown = _share(broker, seconds), broker.rss_bytes() - before
        if json.loads(load.output())["answers"]:
            raise RuntimeError("polls ended that were to wait")
    return share, grown


def _renewed(bench: Bench, broker: Process, address: str, window_s: float, layout: dict[str, object]) -> float:
    """Share of a core, %."""
    with _start(bench, address, window_s, POLL_S, layout) as load:
        load.next_line()
        share = _share(broker, window_s)
        answers = json.loads(load.output())["answers"]
    if not 0.9 < answers / (POLLS * window_s / POLL_S) < 1.1:
        raise RuntimeError(f"{answers:,} polls ended in {window_s:.0f} s")
    return share


def _start(bench: Bench, address: str, seconds: float, poll_s: float, layout: dict[str, object]) -> Process:
    begin_s = BEGIN_S if poll_s > POLL_S else poll_s  # those that are renewed end as evenly as they began
    return load_program.start(
        "polls", address, bench.folder, connections=CLIENTS, in_flight=POLLS, seconds=seconds, poll_seconds=poll_s,
        warmup_seconds=begin_s, **layout,
    )  # fmt: skip


def _streams(bench: Bench, broker: Process, address: str) -> float:
    arguments = (address, TOPIC, GROUP, str(STREAMS), "1")
    with Process.python("benchmarks.fan_out_load", *arguments, log=bench.folder / "load.log", core=LOAD_CORE) as load:
        load.next_line()
        share = _share(broker, POLL_S)
        load.check_alive()
    return share


def _share(broker: Process, seconds: float) -> float:
    """Of a core that the broker uses, %."""
    before_s, began = broker.cpu_s(), time.monotonic()
    time.sleep(seconds)
    return (broker.cpu_s() - before_s) / (time.monotonic() - began) * 100
