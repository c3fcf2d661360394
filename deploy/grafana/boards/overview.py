"""The cluster as a whole: the first page that one sees."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.boards.house import (
    BYTES,
    GREEN,
    MESSAGES_S,
    NONE_IS_BAD,
    NONE_IS_GOOD,
    NUMBER,
    PER_MIN,
    PER_S,
    RATIO,
    RED,
    TIME_MS,
    TIME_S,
    YELLOW,
    Query,
    Steps,
    graph,
    listing,
    new_board,
    number,
    or_none,
    per_minute,
    quantile,
    rate,
    row,
)

OF = 'cluster=~"$cluster"'
KNOWN = f"cluster_broker:kourou_broker:known{{{OF}}}"
CONNECTED = f"cluster_broker:kourou_namesrv_broker_connected:max{{{OF}}}"
LAG = f"group_topic:rocketmq_consumer_lag_messages:sum{{{OF}}}"
DEAD_LETTERS = f"rocketmq_send_to_dlq_messages_total{{{OF}}}"
FREE_SHARE = f"kourou_disk_free_bytes{{{OF}}} / kourou_disk_size_bytes{{{OF}}}"
ALERTS = 'ALERTS{alertstate=~"firing|pending"}'
BY_BROKER = f"sum by (node_id) (0 * kourou_disk_writable{{{OF}}})"
"""0 for each broker: what it took in where it has no topic yet."""


def board() -> Dashboard:
    board = new_board(
        "kourou-overview",
        "Kourou / Overview",
        "Whether the cluster is well, what goes through it, and how long that takes.",
    )
    well(board)
    traffic(board)
    times(board)
    resources(board)
    names(board)
    return board


def well(board: Dashboard) -> None:
    row(
        board,
        "Is it well?",
        number(
            "Brokers up",
            "Brokers that at least one NameServer has a connection to.",
            Query(f"count({CONNECTED} == 1) or vector(0)"),
            steps=NONE_IS_BAD,
        ),
        number(
            "Brokers lost",
            "Brokers that the cluster knows and no NameServer has a connection to. `kourou broker forget` is for one "
            "that shall not come back.",
            Query(f"count({KNOWN} unless on (cluster, broker) {CONNECTED} == 1) or vector(0)"),
            steps=NONE_IS_GOOD,
        ),
        number(
            "NameServers ready",
            "NameServers that answer clients. One that has just started waits for the brokers first.",
            Query(f"sum(kourou_namesrv_ready{{{OF}}}) or vector(0)"),
            steps=NONE_IS_BAD,
        ),
        number(
            "Alerts firing",
            "Critical alerts and warnings; the table below names them, docs/operations.md says what to do.",
            Query('count(ALERTS{alertstate="firing", severity!="info"}) or vector(0)'),
            steps=NONE_IS_GOOD,
        ),
        number(
            "Free disk, least",
            "Of all brokers' disks, the share that is free on the fullest one.",
            Query(f"min({FREE_SHARE})"),
            unit=RATIO,
            steps=Steps(RED, ((0.1, YELLOW), (0.2, GREEN))),
        ),
        number(
            "Lag",
            "Messages that groups have not acknowledged yet, over all groups and topics.",
            Query(f"sum({LAG}) or vector(0)"),
        ),
        number(
            "Dead letters",
            "Messages that went to a dead-letter topic in the time shown.",
            Query(f"round(sum(increase({DEAD_LETTERS}[$__range]))) or vector(0)"),
            steps=NONE_IS_GOOD,
        ),
        number(
            "Clients",
            "Producers and consumers. One that is connected to several brokers counts at each.",
            Query(f"sum(kourou_clients{{{OF}}}) or vector(0)"),
        ),
        listing(
            "Alerts",
            "What fires now, and what will if it lasts.",
            {"Number": Query(or_none(f"count by (alertname, severity, alertstate) ({ALERTS})", "alertname"))},
            units={"Number": NUMBER},
            height=5,
        ),
    )


def traffic(board: Dashboard) -> None:
    messages_in, messages_out = f"rocketmq_messages_in_total{{{OF}}}", f"rocketmq_messages_out_total{{{OF}}}"
    row(
        board,
        "Traffic",
        number(
            "Messages in",
            "Stored by all brokers, each second.",
            Query(f"sum(rate({messages_in}[$__rate_interval])) or vector(0)"),
            unit=MESSAGES_S,
            width=6,
        ),
        number(
            "Messages out",
            "Delivered by all brokers, each second; redeliveries too.",
            Query(f"sum(rate({messages_out}[$__rate_interval])) or vector(0)"),
            unit=MESSAGES_S,
            width=6,
        ),
        number(
            "Bytes in",
            "Of the messages stored, each second.",
            Query(f"sum(rate(rocketmq_throughput_in_total{{{OF}}}[$__rate_interval])) or vector(0)"),
            unit="Bps",
            width=6,
        ),
        number(
            "Bytes out",
            "Of the messages delivered, each second.",
            Query(f"sum(rate(rocketmq_throughput_out_total{{{OF}}}[$__rate_interval])) or vector(0)"),
            unit="Bps",
            width=6,
        ),
        graph(
            "Messages in, by broker",
            "Stored, each second. Clients send to the brokers in turn, so the lines should lie close together.",
            Query(f"{rate('rocketmq_messages_in_total', 'node_id', OF)} or {BY_BROKER}", "{{node_id}}"),
            unit=MESSAGES_S,
            stacked=True,
            width=6,
        ),
        graph(
            "Messages out, by broker",
            "Delivered to consumers, each second; redeliveries too.",
            Query(f"{rate('rocketmq_messages_out_total', 'node_id', OF)} or {BY_BROKER}", "{{node_id}}"),
            unit=MESSAGES_S,
            stacked=True,
            width=6,
        ),
        graph(
            "Lag, by group",
            "Messages not acknowledged yet, of the ten groups with the most.",
            Query(or_none(f"topk(10, sum by (consumer_group) ({LAG}))", "consumer_group"), "{{consumer_group}}"),
            width=6,
        ),
        graph(
            "Dead letters, by group",
            "Messages that no attempt got acknowledged, each minute.",
            Query(
                or_none(
                    f"round(sum by (consumer_group) (increase({DEAD_LETTERS}[$__rate_interval])))", "consumer_group"
                ),
                "{{consumer_group}}",
            ),
            bars=True,
            width=6,
        ),
    )


def times(board: Dashboard) -> None:
    calls = f'node_method:rocketmq_rpc_latency_milliseconds_bucket:rate1m{{{OF}, node_type="broker"}}'
    row(
        board,
        "Times",
        graph(
            "Calls to brokers, 99th percentile",
            "From a request's arrival to its answer, by method; what waits for messages is not in it. A send waits for "
            "the disk.",
            Query(f"histogram_quantile(0.99, sum by (request_code, le) ({calls})) >= 0", "{{request_code}}"),
            unit=TIME_MS,
        ),
        graph(
            "Sync of the log, 99th percentile",
            "How long fdatasync takes. Each send and acknowledgement waits for one. The alert is at 100 ms.",
            Query(quantile(0.99, "kourou_log_sync_seconds", "node_id", selector=OF), "{{node_id}}"),
            unit=TIME_S,
            line_at=0.1,
            no_value="Nothing was written in this time",
        ),
        graph(
            "Event loops, 99th percentile of lateness",
            "How late timers fire. All a service does goes through its loop; over 100 ms, clients feel it.",
            Query(
                quantile(0.99, "kourou_event_loop_lag_seconds", "node_type, node_id, instance", selector=OF),
                "{{node_type}} {{instance}}",
            ),
            unit=TIME_S,
            line_at=0.1,
        ),
    )


def resources(board: Dashboard) -> None:
    row(
        board,
        "Disk, memory, CPU",
        graph(
            "Free disk",
            "Below the watermark (dashed) a broker refuses new messages; all else goes on.",
            Query(f"kourou_disk_free_bytes{{{OF}}}", "{{node_id}}"),
            Query(f"max(kourou_disk_watermark_bytes{{{OF}}})", "watermark"),
            unit=BYTES,
            width=6,
        ),
        graph(
            "Size of the logs",
            "From the first message that is kept to the last.",
            Query(f"sum by (node_id) (rocketmq_storage_size_bytes{{{OF}}})", "{{node_id}}"),
            unit=BYTES,
            width=6,
        ),
        graph(
            "Memory",
            "What the processes hold (resident).",
            Query(f"process_resident_memory_bytes{{{OF}}}", "{{node_type}} {{instance}}"),
            unit=BYTES,
            width=6,
        ),
        graph(
            "CPU",
            "A service uses one core at most for its loop, and a little beside it for the disk.",
            Query(f"rate(process_cpu_seconds_total{{{OF}}}[$__rate_interval])", "{{node_type}} {{instance}}"),
            unit=RATIO,
            width=6,
        ),
    )


def names(board: Dashboard) -> None:
    row(
        board,
        "Name service and admin service",
        graph(
            "Brokers at each NameServer",
            "Registered and connected. Where lines differ, a broker does not reach a NameServer.",
            Query(
                f"sum by (instance) (kourou_namesrv_broker_connected{{{OF}}}) "
                f"or sum by (instance) (0 * kourou_namesrv_ready{{{OF}}})",
                "{{instance}}",
            ),
            width=6,
        ),
        graph(
            "Heartbeats",
            "Of all brokers, that NameServers got: two a minute from each broker while nothing changes.",
            Query(
                f"{per_minute('kourou_namesrv_heartbeats_total', 'instance', OF)} "
                f"or sum by (instance) (0 * kourou_namesrv_ready{{{OF}}})",
                "{{instance}}",
            ),
            unit=PER_MIN,
            width=6,
        ),
        graph(
            "Route pulls",
            "Routes that clients and brokers asked NameServers for, by what came of it.",
            Query(rate("kourou_namesrv_route_pulls_total", "result", OF), "{{result}}"),
            unit=PER_S,
            width=6,
        ),
        graph(
            "Admin service",
            "Brokers that it reaches, and topics and groups that are not the same on all of them.",
            Query(f"kourou_admin_brokers_reachable{{{OF}}}", "brokers reachable"),
            Query(f"kourou_admin_differing_definitions{{{OF}}}", "definitions that differ"),
            width=6,
        ),
    )
