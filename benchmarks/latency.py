"""How long a message takes from its sender to its receiver, at 100 messages a second."""

from benchmarks import load_program
from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.servers import Cluster, echo_server

TOPIC = "bench"
GROUP = "bench"
RATE_PER_S = 100


def end_to_end(bench: Bench) -> list[Figure]:
    """`beside` is a send to the bare echo and back, which is half of the way."""
    with echo_server(bench.folder) as (_, echo_address), Cluster(bench.folder / "cluster") as cluster:
        cluster.wait_ready()
        cluster.broker.put_topics([TOPIC])
        cluster.broker.put_group(GROUP)
        flags = {"topic": TOPIC, "rate": RATE_PER_S, "seconds": bench.seconds * bench.rounds, "warmup_seconds": 1}
        beside = load_program.run("latency", echo_address, bench.folder, pollers=0, **flags)["send_ms"]
        result = load_program.run("latency", cluster.broker.address, bench.folder, group=GROUP, **flags)
    return [
        Figure(f"{what}, {name}", "ms", times[key], beside[key], ratio=times[key] / beside[key])
        for what, times in (("sender to receiver", result["end_to_end_ms"]), ("send", result["send_ms"]))
        for name, key in (("median", "p50"), ("99 %", "p99"), ("99.9 %", "p99_9"))
    ]
