"""How long it takes to tell what became of a message, with a log of 10 GB; and what the indexes for it cost."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks import disk, filled_log, load_program
from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.process import cpu_s
from benchmarks.servers import Broker, Cluster, call, check, wait_serving
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc

LOG_BYTES = 10_000_000_000
QUESTIONS = 40
COMMANDS = 10
BATCH = 32
LOAD_MESSAGES = 1_200_000 // BATCH * BATCH
_INDEXES = ("keys-", "history-")
_INDEXING_TIMEOUT_S = 1800.0


def explain(bench: Bench) -> list[Figure]:
    with Cluster(bench.folder / "cluster", admin=True) as cluster:
        cluster.wait_ready()
        broker = cluster.broker
        costs = _cost_of_indexing(bench, broker)
        broker.process.stop()
        broker.data = bench.folder / "long"
        began = time.monotonic()
        messages = filled_log.fill(broker.data, LOG_BYTES)
        details = {"log": f"{messages:,} messages, written in {time.monotonic() - began:.0f} s"}
        _start(broker)
        built_s = _built(broker)
        size = sum(path.stat().st_size for path in _index_files(broker.data))
        details["indexes"] = f"built in {built_s:.0f} s after the start, {size / 1e6:.0f} MB"
        _restart(broker)
        first_s = _ask(broker, messages // 2)
        rng = random.Random(1)
        later_s = [_ask(broker, rng.randrange(messages)) for _ in range(QUESTIONS)]
        command_s = [_command(cluster, rng.randrange(messages)) for _ in range(COMMANDS)]
        broker.process.stop()
        disk.forget_cached(broker.data)
        _start(broker)
        cold_s = _ask(broker, messages // 3)
    return [
        Figure.at_most("10 GB, the first question after a start", "s", first_s, 2, details=details),
        Figure.at_most("later ones, median", "s", median(later_s), 2, details={"slowest": f"{max(later_s):.2f} s"}),
        Figure.at_most("`kourou message explain`, median", "s", median(command_s), 2),
        Figure.at_most("the first one, nothing in the page cache", "s", cold_s, 2),
        *costs,
    ]


def _ask(broker: Broker, number: int) -> float:
    """Seconds until the story of a message was told; it must be a whole one."""
    request = broker_pb2.ExplainMessageRequest(
        topic={"name": filled_log.TOPIC}, message_id=filled_log.message_id(number)
    )
    began = time.monotonic()
    answer = call(broker.address, broker_rpc.EXPLAIN_MESSAGE, request)
    took_s = time.monotonic() - began
    check(answer.status)
    fates = [broker_pb2.Fate.Name(group.fate) for story in answer.stories for group in story.groups]
    if len(answer.stories) != 1 or len(fates) != 2:
        raise RuntimeError(f"message {number}: {len(answer.stories)} stories, {fates}")
    return took_s


def _command(cluster: Cluster, number: int) -> float:
    """Seconds that a user waits for the same."""
    command = [Path(sys.executable).with_name("kourou"), "message", "explain", filled_log.TOPIC]
    began = time.monotonic()
    ran = subprocess.run(
        [*command, filled_log.message_id(number), "--admin", cluster.admin_address], capture_output=True, text=True
    )
    took_s = time.monotonic() - began
    if ran.returncode or ran.stdout.count("group ") != 2:
        raise RuntimeError(f"message {number}: {ran.stdout}{ran.stderr}")
    return took_s


def _restart(broker: Broker) -> None:
    broker.process.stop()
    _start(broker)


def _start(broker: Broker) -> None:
    broker.start()
    wait_serving(broker.address, broker.process)


def _built(broker: Broker) -> float:
    """Seconds until every sealed segment has its indexes."""
    began = time.monotonic()
    while len(_index_files(broker.data)) < 2 * (len(list((broker.data / "segments").glob("*.segment"))) - 1):
        broker.process.check_alive()
        if time.monotonic() - began > _INDEXING_TIMEOUT_S:
            raise TimeoutError("the indexes were not built")
        time.sleep(0.1)
    return time.monotonic() - began


def _has_low_priority(pid: int) -> bool:
    """Of the processes of a broker only the one that builds the indexes has it."""
    return os.getpriority(os.PRIO_PROCESS, pid) > 0


def _index_files(folder: Path) -> list[Path]:
    return [path for path in (folder / "blobs").iterdir() if path.name.startswith(_INDEXES) and path.suffix != ".tmp"]


def _cost_of_indexing(bench: Bench, broker: Broker) -> list[Figure]:
    """CPU of the process that builds the indexes, beside that of the broker while it took the messages in batches."""
    broker.put_topics([filled_log.TOPIC])
    before_s = broker.process.cpu_s()
    load_program.run("send", broker.address, bench.folder, topic=filled_log.TOPIC, batch=BATCH, messages=LOAD_MESSAGES)
    broker_s = broker.process.cpu_s() - before_s
    _built(broker)
    indexer_s = sum(cpu_s(pid) for pid in broker.process.rss_by_process() if _has_low_priority(pid))
    details = {"messages": f"{LOAD_MESSAGES:,} in batches of {BATCH}, without consumers"}
    return [
        Figure(
            "CPU of indexing",
            "s",
            indexer_s,
            broker_s,
            beside_name="the broker's",
            ratio=indexer_s / broker_s,
            details=details,
        )
    ]
