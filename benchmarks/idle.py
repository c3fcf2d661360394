"""The memory of each idle process, and the time until a cluster that starts delivers its first message."""

import time

from benchmarks import load_program
from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.servers import Cluster, call, echo_server, send_one, wait_serving
from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc

TOPIC = "bench"
GROUP = "bench"
SETTLED_S = 3.0
MIB = 1024 * 1024


def memory(bench: Bench) -> list[Figure]:
    with echo_server(bench.folder) as (echo, _), Cluster(bench.folder / "cluster", admin=True) as cluster:
        cluster.wait_ready()
        cluster.broker.put_topics([TOPIC])
        time.sleep(SETTLED_S)
        beside = echo.rss_bytes() / MIB
        processes = {"namesrv": cluster.namesrv, "broker": cluster.broker.process, "admin": cluster.admin}
        figures: list[Figure] = []
        for name, process in processes.items():
            assert process is not None
            process.check_alive()
            for part, rss_bytes in process.rss_by_process().items():
                value = rss_bytes / MIB
                label = f"{name}, idle" if part == process.pid else f"{name}'s helper, idle"
                figures.append(Figure.at_most(label, "MiB", value, 80, beside=beside, ratio=value / beside))
        return figures


def first_message(bench: Bench) -> list[Figure]:
    """NameServer and broker start at once on an empty folder, on all cores, as they do at a user's."""
    totals: list[float] = []
    besides: list[float] = []
    steps: dict[str, float] = {}
    for each in range(bench.rounds):
        besides.append(_first_echo(bench))
        began = time.monotonic()
        with Cluster(bench.folder / f"cluster-{each}", core=None) as cluster:
            steps = {}

            def passed(step: str, began: float = began, steps: dict[str, float] = steps) -> None:
                steps[step] = round(time.monotonic() - began, 2)

            wait_serving(cluster.broker.address, cluster.broker.process)
            passed("broker serves")
            cluster.broker.put_topics([TOPIC])
            cluster.broker.put_group(GROUP)
            wait_serving(cluster.access_point, cluster.namesrv)
            passed("NameServer serves")
            _wait_for_route(cluster)
            passed("route is there")
            send_one(cluster.broker.address, TOPIC)
            passed("sent")
            load_program.run(
                "receive", cluster.broker.address, bench.folder, topic=TOPIC, group=GROUP, messages=1, in_flight=1
            )
            passed("received and acknowledged")
            totals.append(time.monotonic() - began)
    value, beside = sorted(totals)[len(totals) // 2], sorted(besides)[len(besides) // 2]
    return [
        Figure.at_most(
            "start to first message", "s", value, 2, beside=beside, ratio=value / beside, details={"seconds": steps}
        )
    ]


def _first_echo(bench: Bench) -> float:
    began = time.monotonic()
    with echo_server(bench.folder, core=None) as (_, address):
        send_one(address, TOPIC)
        return time.monotonic() - began


def _wait_for_route(cluster: Cluster) -> None:
    request = service_pb2.QueryRouteRequest(topic={"name": TOPIC})
    while call(cluster.access_point, service_rpc.QUERY_ROUTE, request).status.code != definition_pb2.OK:
        cluster.namesrv.check_alive()
        time.sleep(0.01)
