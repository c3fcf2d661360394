"""The NameServers: who is registered with them, and what clients ask them."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.boards.house import (
    BYTES,
    GREEN,
    PER_MIN,
    PER_S,
    RATIO,
    RED,
    TIME_MS,
    TIME_S,
    YELLOW,
    Query,
    graph,
    new_board,
    number,
    per_minute,
    quantile,
    rate,
    row,
    states,
    variable,
)

OF = 'cluster=~"$cluster", instance=~"$namesrv"'
PROCESS = f'{OF}, node_type="nameserver"'
NAMED = "{{instance}}"
EACH = f"sum by (instance) (0 * kourou_namesrv_ready{{{OF}}})"
"""0 for each NameServer: what it heard where there is no broker."""
LATENCY = "rocketmq_rpc_latency_milliseconds"


def board() -> Dashboard:
    board = new_board(
        "kourou-namesrv",
        "Kourou / NameServers",
        "Which brokers each NameServer knows, and how it answers clients. NameServers are named by their address: they "
        "share one name.",
    )
    board.with_variable(variable("namesrv", "NameServer", 'kourou_namesrv_ready{cluster=~"$cluster"}', of="instance"))
    state(board)
    brokers(board)
    from_brokers(board)
    clients(board)
    process(board)
    return board


def state(board: Dashboard) -> None:
    row(
        board,
        "State",
        number(
            "Ready",
            "Whether it answers clients. After its start it waits for the brokers, 35 s at most.",
            Query(f"kourou_namesrv_ready{{{OF}}}", NAMED),
            words={1: ("ready", GREEN), 0: ("waits", RED)},
            width=6,
        ),
        number(
            "Up for",
            "Since the process started.",
            Query(f"time() - process_start_time_seconds{{{PROCESS}}}", NAMED),
            unit=TIME_S,
            width=6,
        ),
        number("Brokers", "Registered.", Query(f"kourou_namesrv_brokers{{{OF}}}", NAMED), width=4),
        number("Topics", "That some broker holds.", Query(f"kourou_namesrv_topics{{{OF}}}", NAMED), width=4),
        number("Queues", "On all brokers.", Query(f"kourou_namesrv_queues{{{OF}}}", NAMED), width=4),
    )


def brokers(board: Dashboard) -> None:
    row(
        board,
        "Brokers, as the NameServers see them",
        states(
            "Connected",
            "Whether the broker's stream to the NameServer stands. A band that ends: the broker was forgotten.",
            Query(f"kourou_namesrv_broker_connected{{{OF}}}", "{{broker}} at {{instance}}"),
            {1: ("connected", GREEN), 0: ("broken", RED)},
        ),
        states(
            "Permission",
            "What routes tell clients of the broker.",
            Query(f"kourou_namesrv_broker_permission{{{OF}}}", "{{broker}} at {{instance}}"),
            {6: ("send, receive", GREEN), 4: ("receive", YELLOW), 2: ("send", YELLOW), 0: ("none", RED)},
        ),
        graph(
            "Silence",
            "Since a broker was last heard of. Heartbeats come every 30 s; after 120 s it is removed.",
            Query(f"kourou_namesrv_broker_silent_seconds{{{OF}}}", "{{broker}} at {{instance}}"),
            unit=TIME_S,
            line_at=120,
        ),
        graph(
            "Heartbeats",
            "That came from each broker: two a minute while nothing changes.",
            Query(
                f"{per_minute('kourou_namesrv_heartbeats_total', 'broker, instance', OF)} or on (instance) {EACH}",
                "{{broker}} at {{instance}}",
            ),
            unit=PER_MIN,
        ),
        graph(
            "Comings and goings",
            "Each minute: registrations taken and refused, goodbyes, streams that broke, brokers removed "
            "for their silence.",
            Query(_steps("kourou_namesrv_registrations_total", "outcome"), "{{outcome}}"),
            Query(_steps("kourou_namesrv_goodbyes_total"), "goodbyes"),
            Query(_steps("kourou_namesrv_broken_streams_total"), "broken streams"),
            Query(_steps("kourou_namesrv_evictions_total"), "removed"),
            bars=True,
        ),
    )


def from_brokers(board: Dashboard) -> None:
    every = 'cluster=~"$cluster"'
    row(
        board,
        "NameServers, as the brokers see them",
        states(
            "Known there",
            "Whether the NameServer at the address knows the broker. Where this and the NameServer's own view differ, "
            "the network between them is at fault.",
            Query(f"kourou_namesrv_connected{{{every}}}", "{{node_id}} at {{namesrv}}"),
            {1: ("known", GREEN), 0: ("not known", RED)},
        ),
        graph(
            "Heartbeats sent",
            "By each broker to each address, each minute.",
            Query(per_minute("kourou_heartbeats_sent_total", "node_id, namesrv", every), "{{node_id}} to {{namesrv}}"),
            unit=PER_MIN,
            width=12,
        ),
    )


def clients(board: Dashboard) -> None:
    row(
        board,
        "Clients",
        graph(
            "Route pulls",
            "Each second, by what came of it: not_ready is a NameServer that has just started.",
            Query(rate("kourou_namesrv_route_pulls_total", "result", OF), "{{result}}"),
            unit=PER_S,
            width=6,
        ),
        graph(
            "Route pulls, by NameServer",
            "Clients choose one at random, so the lines should lie close together.",
            Query(rate("kourou_namesrv_route_pulls_total", "instance", OF), NAMED),
            unit=PER_S,
            width=6,
        ),
        graph(
            "Time of calls, 99th percentile",
            "From a request's arrival to its answer; what waits for news is not in it.",
            Query(
                quantile(0.99, LATENCY, "request_code", selector=f'{PROCESS}, is_long_polling="false"'),
                "{{request_code}}",
            ),
            unit=TIME_MS,
            width=6,
        ),
        graph(
            "Route watchers",
            "Calls that wait for a change of a route.",
            Query(f"kourou_namesrv_route_watchers{{{OF}}}", NAMED),
            width=6,
        ),
        graph(
            "Calls, by method",
            "Answered each second.",
            Query(rate(f"{LATENCY}_count", "request_code", PROCESS), "{{request_code}}"),
            unit=PER_S,
            width=12,
        ),
        graph(
            "Calls under way",
            "In the engine: taken, and not answered yet. Streams are brokers' registrations and clients' telemetry.",
            Query(
                f"sum by (instance, processor) (rocketmq_processor_watermark{{{PROCESS}}})",
                "{{processor}} {{instance}}",
            ),
            width=12,
        ),
    )


def process(board: Dashboard) -> None:
    row(
        board,
        "Processes",
        graph(
            "Lateness of the event loop, 99th percentile",
            "How late timers fire, sampled each second.",
            Query(quantile(0.99, "kourou_event_loop_lag_seconds", "instance", selector=PROCESS), NAMED),
            unit=TIME_S,
            line_at=0.1,
        ),
        graph(
            "CPU",
            "A NameServer uses one core at most.",
            Query(f"rate(process_cpu_seconds_total{{{PROCESS}}}[$__rate_interval])", NAMED),
            unit=RATIO,
        ),
        graph(
            "Memory",
            "What the process holds (resident).",
            Query(f"process_resident_memory_bytes{{{PROCESS}}}", NAMED),
            unit=BYTES,
        ),
    )


def _steps(metric: str, by: str = "") -> str:
    summed = f"sum by ({by})" if by else "sum"
    return f"round({summed} (increase({metric}{{{OF}}}[$__rate_interval])))"
