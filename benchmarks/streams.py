"""The stream door: frames of 256 KiB published, received and acknowledged; the broker and the bare echo in turn."""

import json
from typing import Any

from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.process import LOAD_CORE, Process
from benchmarks.servers import Cluster, echo_server

TOPIC = "bench"
GROUP = "bench"


def stream_door(bench: Bench) -> list[Figure]:
    with echo_server(bench.folder) as echo, Cluster(bench.folder / "cluster") as cluster:
        cluster.wait_ready()
        cluster.broker.put_topics([TOPIC])
        cluster.broker.put_group(GROUP)
        broker = (cluster.broker.process, cluster.broker.address)
        rounds: dict[str, list[tuple[Any, Any]]] = {"publish": [], "consume": []}
        for _ in range(bench.rounds):
            published = [run(bench, "publish", *server, bench.seconds) for server in (broker, echo)]
            rounds["publish"].append((published[0], published[1]))
            messages = published[0]["messages"]
            rounds["consume"].append((run(bench, "consume", *broker, messages), run(bench, "consume", *echo, messages)))
        return [_figure(mode, results) for mode, results in rounds.items()]


def start(
    bench: Bench, mode: str, address: str, amount: float, *, topic: str = TOPIC, group: str = GROUP, **flags: object
) -> Process:
    """amount: seconds to publish, messages to fill in or to consume; `body_bytes=100` becomes `--body-bytes=100`."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    arguments = (mode, address, topic, group, str(amount), *options)
    return Process.python("benchmarks.stream_load", *arguments, log=bench.folder / "load.log", core=LOAD_CORE)


def run(bench: Bench, mode: str, server: Process, address: str, amount: float, **flags: Any) -> Any:
    """The load's result, with the server's CPU time a message (us) and its share of its core."""
    before_s = server.cpu_s()
    with start(bench, mode, address, amount, **flags) as load:
        result = json.loads(load.output())
    cpu_s = server.cpu_s() - before_s
    result["server_cpu_us"] = cpu_s * 1e6 / result["messages"]
    result["server_cpu_share"] = cpu_s * result["messages_per_s"] / result["messages"]
    return result


def _figure(mode: str, results: list[tuple[Any, Any]]) -> Figure:
    values = [ours["messages_per_s"] for ours, _ in results]
    besides = [beside["messages_per_s"] for _, beside in results]
    details = {name: cost(result) for name, result in zip(("broker", "bare echo"), results[-1], strict=True)}
    least = 0.6 if mode == "publish" else None
    return Figure.of_rounds(f"{mode}, 256 a frame", "messages/s", values, besides, least=least, details=details)


def cost(result: Any) -> str:
    return (
        f"{result['server_cpu_us']:.2f} us of CPU a message, {result['server_cpu_share']:.0%} of its core, "
        f"load {result['cpu_share']:.0%} of its own"
    )
