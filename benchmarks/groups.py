"""Fan-out: what each further group of a topic costs, when frames are fresh and when they are in the page cache."""

from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.echo_server import FRAME_MESSAGES
from benchmarks.figure import Figure
from benchmarks.process import LOAD_CORE, Process
from benchmarks.servers import Broker, Cluster
from benchmarks.streams import run

GROUP = "bench"
GROUPS = 1000
FEW = 10
DELIVERIES_A_SECOND = 1000
"""About what is delivered: it sets how many frames there are."""
OLD_FRAMES = 128
"""Twice as large as the part of the log that the broker keeps in memory."""
OLD_READ = 8
MIB = 1024 * 1024


@dataclass(frozen=True)
class Cost:
    delivery_us: float
    """CPU time of the broker for a frame to one group, without the frame's own."""
    parked_bytes: int
    """Memory of all groups while they wait."""
    peak_bytes: int
    """The most that the broker has used until now."""


def groups(bench: Bench) -> list[Figure]:
    with Cluster(bench.folder / "cluster") as cluster:
        cluster.wait_ready()
        broker = cluster.broker
        broker.put_groups([f"{GROUP}-{number:04d}" for number in range(GROUPS)])
        broker.put_topics(["none", "few", "many", "old-few", "old-many"])
        deliveries = int(bench.seconds * DELIVERIES_A_SECOND)
        frame_us = _publish(bench, broker, "none", deliveries // FEW)
        few = _fan_out(bench, broker, "few", FEW, deliveries // FEW, frame_us)
        many = _fan_out(bench, broker, "many", GROUPS, max(deliveries // GROUPS, 4), frame_us)
        for topic in ("old-few", "old-many"):
            _publish(bench, broker, topic, OLD_FRAMES)
        old_few = _read(bench, broker, "old-few", FEW, OLD_READ * 4)
        old_many = _read(bench, broker, "old-many", GROUPS, OLD_READ)
    details = {
        "a frame itself": f"{frame_us:.0f} us of CPU to publish {FRAME_MESSAGES} messages of 1 KiB",
        f"most memory with {FEW} and {GROUPS:,}": f"{few.peak_bytes / MIB:.0f} and {many.peak_bytes / MIB:.0f} MiB",
    }
    return [
        _compare("a frame to each further group", many, few, details),
        _compare("the same, from the page cache", old_many, old_few, {}),
        Figure("memory of a group that waits", "KiB", many.parked_bytes / GROUPS / 1024),
    ]


def _compare(name: str, many: Cost, few: Cost, details: dict[str, str]) -> Figure:
    ratio = many.delivery_us / few.delivery_us
    return Figure(
        f"{name}, {GROUPS:,} groups", "us of CPU", many.delivery_us, few.delivery_us, f"{FEW} groups", ratio,
        target="at most 120 %", met=ratio <= 1.2, details=details,
    )  # fmt: skip


def _publish(bench: Bench, broker: Broker, topic: str, frames: int) -> float:
    """-> CPU time of the broker for a frame, us."""
    result = run(bench, "fill", broker.process, broker.address, frames * FRAME_MESSAGES, topic=topic)
    return result["server_cpu_us"] * FRAME_MESSAGES


def _fan_out(bench: Bench, broker: Broker, topic: str, groups: int, frames: int, frame_us: float) -> Cost:
    """So many groups wait, then so many frames come to all of them."""
    before = broker.process.rss_bytes()
    with _start(bench, broker, topic, groups, frames) as load:
        load.next_line()
        parked, cpu_s = broker.process.rss_bytes() - before, broker.process.cpu_s()
        _publish(bench, broker, topic, frames)
        load.output()
        used_us = (broker.process.cpu_s() - cpu_s) * 1e6 - frames * frame_us
    return Cost(used_us / groups / frames, parked, broker.process.peak_rss_bytes())


def _read(bench: Bench, broker: Broker, topic: str, groups: int, frames: int) -> Cost:
    """So many groups read what is there."""
    before, cpu_s = broker.process.rss_bytes(), broker.process.cpu_s()
    with _start(bench, broker, topic, groups, frames) as load:
        load.output()
    used_us = (broker.process.cpu_s() - cpu_s) * 1e6
    grown = broker.process.rss_bytes() - before
    return Cost(used_us / groups / frames, grown, broker.process.peak_rss_bytes())


def _start(bench: Bench, broker: Broker, topic: str, groups: int, frames: int) -> Process:
    arguments = (broker.address, topic, GROUP, str(groups), str(frames * FRAME_MESSAGES))
    return Process.python("benchmarks.fan_out_load", *arguments, log=bench.folder / "load.log", core=LOAD_CORE)
