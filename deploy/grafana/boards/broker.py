"""What one broker, or each of several, does."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.boards.house import (
    BYTES,
    BYTES_S,
    GOOD,
    GREEN,
    MESSAGES_S,
    NONE_IS_BAD,
    NONE_IS_GOOD,
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
    or_none,
    quantile,
    rate,
    row,
    variable,
)

OF = 'cluster=~"$cluster", node_id=~"$broker"'
PROCESS = f'{OF}, node_type="broker"'
NAMED = "{{node_id}}"
LATENCY = "rocketmq_rpc_latency_milliseconds"
ANSWERED = f'{PROCESS}, is_long_polling="false"'
EACH = f"sum by (node_id) (0 * kourou_disk_writable{{{OF}}})"
"""0 for each broker: what it did where there is no topic yet."""


def board() -> Dashboard:
    board = new_board("kourou-broker", "Kourou / Broker", "What brokers take, deliver, write and wait for.")
    brokers = 'kourou_build_info{cluster=~"$cluster", node_type="broker"}'
    board.with_variable(variable("broker", "Broker", brokers, of="node_id"))
    state(board)
    messages(board)
    calls(board)
    log(board)
    disk(board)
    consumers(board)
    process(board)
    return board


def state(board: Dashboard) -> None:
    row(
        board,
        "State",
        number(
            "Up for",
            "Since the process started.",
            Query(f"time() - process_start_time_seconds{{{PROCESS}}}", NAMED),
            unit=TIME_S,
            steps=GOOD,
        ),
        number(
            "Permission",
            "Whether clients may send and receive. Draining takes the permission to send.",
            Query(f"rocketmq_broker_permission{{{OF}}}", NAMED),
            words={6: ("send, receive", GREEN), 4: ("receive", YELLOW), 2: ("send", YELLOW), 0: ("none", RED)},
        ),
        number(
            "Disk",
            "Whether it has room for new messages.",
            Query(f"kourou_disk_writable{{{OF}}}", NAMED),
            words={1: ("writable", GREEN), 0: ("full", RED)},
        ),
        number(
            "NameServers",
            "Those that know the broker.",
            Query(f"sum by (node_id) (kourou_namesrv_connected{{{OF}}})", NAMED),
            steps=NONE_IS_BAD,
        ),
        number("Topics", "On this broker.", Query(f"rocketmq_topic_number{{{OF}}}", NAMED)),
        number("Groups", "Consumer groups on this broker.", Query(f"rocketmq_consumer_group_number{{{OF}}}", NAMED)),
        number(
            "Recovery",
            "How long the last start read the log.",
            Query(f"kourou_recovery_seconds{{{OF}}}", NAMED),
            unit=TIME_S,
        ),
        number(
            "Damaged segments",
            "Found by verifying sealed segments in the background, since the start.",
            Query(f"kourou_scrub_faults_total{{{OF}}}", NAMED),
            steps=NONE_IS_GOOD,
        ),
    )


def messages(board: Dashboard) -> None:
    row(
        board,
        "Messages",
        graph(
            "In",
            "Messages stored, each second.",
            Query(f"{rate('rocketmq_messages_in_total', 'node_id', OF)} or {EACH}", NAMED),
            unit=MESSAGES_S,
        ),
        graph(
            "Out",
            "Messages delivered, each second; redeliveries too.",
            Query(f"{rate('rocketmq_messages_out_total', 'node_id', OF)} or {EACH}", NAMED),
            unit=MESSAGES_S,
        ),
        graph(
            "Settled and redelivered",
            "Messages acknowledged, and those delivered at a later attempt than the first, each second.",
            Query(f"{rate('kourou_acknowledged_messages_total', 'node_id', OF)} or {EACH}", "acknowledged {{node_id}}"),
            Query(f"{rate('kourou_redelivered_messages_total', 'node_id', OF)} or {EACH}", "redelivered {{node_id}}"),
            unit=MESSAGES_S,
        ),
        graph(
            "Bytes",
            "Of the messages stored and delivered, each second.",
            Query(f"{rate('rocketmq_throughput_in_total', 'node_id', OF)} or {EACH}", "in {{node_id}}"),
            Query(f"{rate('rocketmq_throughput_out_total', 'node_id', OF)} or {EACH}", "out {{node_id}}"),
            unit=BYTES_S,
        ),
        graph(
            "Size of messages",
            "The mean of those stored; and what 99 of 100 are not larger than, read off buckets from 1 KiB to 4 MiB.",
            Query(
                f"{rate('rocketmq_throughput_in_total', 'node_id', OF)} "
                f"/ ({rate('rocketmq_messages_in_total', 'node_id', OF)} > 0)",
                "mean {{node_id}}",
            ),
            Query(quantile(0.99, "rocketmq_message_size", "node_id", selector=OF), "99th percentile {{node_id}}"),
            unit=BYTES,
            no_value="No message was stored in this time",
        ),
        graph(
            "Refused sends",
            "Sends (calls or batches) that were refused, each second, by the code of the answer.",
            Query(
                or_none(rate("kourou_refused_sends_total", "reason, node_id", OF), "reason"), "{{reason}} {{node_id}}"
            ),
            unit=PER_S,
        ),
    )


def calls(board: Dashboard) -> None:
    row(
        board,
        "Calls",
        graph(
            "Calls, by method",
            "Answered each second.",
            Query(rate(f"{LATENCY}_count", "request_code", PROCESS), "{{request_code}}"),
            unit=PER_S,
        ),
        graph(
            "Time of calls, 99th percentile",
            "From a request's arrival to its answer; what waits for messages is not in it.",
            Query(quantile(0.99, LATENCY, "request_code", selector=ANSWERED), "{{request_code}}"),
            unit=TIME_MS,
        ),
        graph(
            "Time of a send",
            "A send is answered when the disk has it.",
            *(
                Query(
                    quantile(share, LATENCY, "node_id", selector=f'{PROCESS}, request_code=~"SendMessage|Publish"'),
                    f"{percentile} percentile {{{{node_id}}}}",
                )
                for share, percentile in ((0.5, "50th"), (0.9, "90th"), (0.99, "99th"))
            ),
            unit=TIME_MS,
            no_value="Nothing was sent in this time",
        ),
        graph(
            "Calls that failed",
            "Each second, by method and code.",
            Query(
                or_none(
                    rate(f"{LATENCY}_count", "request_code, response_code", f'{PROCESS}, result="failed"'),
                    "request_code",
                ),
                "{{request_code}} {{response_code}}",
            ),
            unit=PER_S,
        ),
        graph(
            "Calls under way",
            "Taken by the engine and not answered yet. Streams are clients' telemetry and receiving.",
            Query(
                f"sum by (node_id, processor) (rocketmq_processor_watermark{{{PROCESS}}})", "{{processor}} {{node_id}}"
            ),
        ),
        graph(
            "Polls that wait",
            "Calls that wait for messages; they cost nothing until some come.",
            Query(f"kourou_parked_polls{{{OF}}}", NAMED),
        ),
    )


def log(board: Dashboard) -> None:
    frames, groups = f"kourou_log_frames_total{{{OF}}}", f"kourou_log_groups_total{{{OF}}}"
    row(
        board,
        "Log",
        graph(
            "Appended",
            "Bytes written to the log, each second: messages, and what was done with them.",
            Query(f"rate(kourou_log_appended_bytes_total{{{OF}}}[$__rate_interval])", NAMED),
            unit=BYTES_S,
        ),
        graph(
            "Time of a sync",
            "fdatasync of the log. Every send and acknowledgement waits for one; the alert is at 100 ms.",
            Query(quantile(0.5, "kourou_log_sync_seconds", "node_id", selector=OF), "50th percentile {{node_id}}"),
            Query(quantile(0.99, "kourou_log_sync_seconds", "node_id", selector=OF), "99th percentile {{node_id}}"),
            unit=TIME_S,
            line_at=0.1,
            no_value="Nothing was written in this time",
        ),
        graph(
            "Group commits",
            "Frames are what came in one turn of the loop; a group is what one sync made durable.",
            Query(f"rate({groups}[$__rate_interval])", "groups {{node_id}}"),
            Query(f"rate({frames}[$__rate_interval])", "frames {{node_id}}"),
            unit=PER_S,
        ),
        graph(
            "Waiting for the disk",
            "Bytes in memory that are not durable yet. At a limit, sends get TOO_MANY_REQUESTS.",
            Query(f"kourou_log_waiting_bytes{{{OF}}}", "waiting {{node_id}}"),
            Query(
                f"kourou_log_next_position_bytes{{{OF}}} - kourou_log_durable_position_bytes{{{OF}}}",
                "behind {{node_id}}",
            ),
            unit=BYTES,
        ),
        graph(
            "Delayed messages",
            "Their time has not come. The lag: how late the last ones were, or the first one is that should be there.",
            Query(f"sum by (node_id) (rocketmq_timing_messages{{{OF}}}) or {EACH}", "waiting {{node_id}}"),
            Query(f"rocketmq_timer_dequeue_latency_milliseconds{{{OF}}} / 1000", "lag {{node_id}}, s"),
        ),
        graph(
            "Transactions",
            "Half messages are those of open ones. Given up: nobody said what became of them.",
            Query(f"sum by (node_id) (rocketmq_half_messages{{{OF}}}) or {EACH}", "open {{node_id}}"),
            *(
                Query(f"{rate(metric, 'node_id', OF)} or {EACH}", f"{outcome} {{{{node_id}}}}, /s")
                for outcome, metric in (
                    ("committed", "rocketmq_commit_messages_total"),
                    ("rolled back", "rocketmq_rollback_messages_total"),
                    ("given up", "kourou_transactions_given_up_total"),
                )
            ),
        ),
        graph(
            "Not in a snapshot",
            "Age of the oldest record that a start would read again.",
            Query(f"kourou_snapshot_age_seconds{{{OF}}}", NAMED),
            unit=TIME_S,
        ),
        graph(
            "What is kept",
            "Age of what stands first in the log. Retention drops whole segments.",
            Query(f"rocketmq_storage_message_reserve_time_milliseconds{{{OF}}}", NAMED),
            unit=TIME_MS,
        ),
    )


def disk(board: Dashboard) -> None:
    row(
        board,
        "Disk",
        graph(
            "Free space",
            "Below the watermark new messages are refused; all else goes on.",
            Query(f"kourou_disk_free_bytes{{{OF}}}", "free {{node_id}}"),
            Query(f"kourou_disk_watermark_bytes{{{OF}}}", "watermark {{node_id}}"),
            unit=BYTES,
        ),
        graph(
            "Share in use",
            "Of the disk that the log is on, by whomever.",
            Query(f"1 - kourou_disk_free_bytes{{{OF}}} / kourou_disk_size_bytes{{{OF}}}", NAMED),
            unit=RATIO,
            line_at=0.9,
        ),
        graph(
            "Size of the log",
            "And how many segments of it there are.",
            Query(f"sum by (node_id) (rocketmq_storage_size_bytes{{{OF}}})", NAMED),
            unit=BYTES,
            width=4,
        ),
        graph(
            "Segments",
            "Files of the log.",
            Query(f"kourou_log_segments{{{OF}}}", NAMED),
            width=4,
        ),
    )


def consumers(board: Dashboard) -> None:
    row(
        board,
        "Clients and groups",
        graph(
            "Clients",
            "By what they are; unspecified: they have not said yet.",
            Query(f"sum by (type) (kourou_clients{{{OF}}})", "{{type}}"),
            stacked=True,
            width=6,
        ),
        graph(
            "Clients, by program",
            "By the language and version that they report.",
            Query(
                or_none(
                    "sum by (language, version) "
                    f"(rocketmq_producer_connections{{{OF}}} or rocketmq_consumer_connections{{{OF}}})",
                    "language",
                ),
                "{{language}} {{version}}",
            ),
            stacked=True,
            width=6,
        ),
        graph(
            "Lag",
            "Messages on this broker that groups have not acknowledged yet.",
            Query(f"sum by (node_id) (rocketmq_consumer_lag_messages{{{OF}}}) or {EACH}", NAMED),
            width=6,
        ),
        graph(
            "Queues at their limit",
            "So much of them is received and not acknowledged that the group gets nothing new.",
            Query(f"kourou_queues_at_pending_limit{{{OF}}}", NAMED),
            width=6,
        ),
    )


def process(board: Dashboard) -> None:
    row(
        board,
        "Process",
        graph(
            "Lateness of the event loop",
            "How late timers fire, sampled each second. Over 100 ms the alert fires.",
            Query(
                quantile(0.5, "kourou_event_loop_lag_seconds", "node_id", selector=PROCESS),
                "50th percentile {{node_id}}",
            ),
            Query(
                quantile(0.99, "kourou_event_loop_lag_seconds", "node_id", selector=PROCESS),
                "99th percentile {{node_id}}",
            ),
            unit=TIME_S,
            line_at=0.1,
            width=6,
        ),
        graph(
            "CPU",
            "A broker's loop uses one core at most.",
            Query(f"rate(process_cpu_seconds_total{{{PROCESS}}}[$__rate_interval])", NAMED),
            unit=RATIO,
            width=6,
        ),
        graph(
            "Memory",
            "What the process holds (resident).",
            Query(f"process_resident_memory_bytes{{{PROCESS}}}", NAMED),
            unit=BYTES,
            width=6,
        ),
        graph(
            "Lines logged",
            "Each minute, by level.",
            Query(
                f"round(sum by (level) (increase(kourou_log_messages_total{{{PROCESS}}}[$__rate_interval])))",
                "{{level}}",
            ),
            bars=True,
            width=6,
        ),
    )
