"""What goes through topics, and how far groups are with them."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.boards.house import (
    BYTES,
    BYTES_S,
    GREEN,
    MESSAGES_S,
    NONE_IS_GOOD,
    NUMBER,
    RED,
    TIME_S,
    YELLOW,
    Query,
    Steps,
    graph,
    listing,
    new_board,
    number,
    or_none,
    rate,
    row,
    variable,
)

OF_TOPIC = 'cluster=~"$cluster", topic=~"$topic"'
OF = f'{OF_TOPIC}, consumer_group=~"$group"'
LAG = f"group_topic:rocketmq_consumer_lag_messages:sum{{{OF}}}"
OLDEST = f"kourou_oldest_waiting_message_seconds{{{OF}}}"
DEAD_LETTERS = f"rocketmq_send_to_dlq_messages_total{{{OF}}}"
BY = "consumer_group, topic"
NAMED = "{{consumer_group}} on {{topic}}"


def board() -> Dashboard:
    board = new_board(
        "kourou-topic", "Kourou / Topic and group", "Rates, lag and waiting times by topic, consumer group and broker."
    )
    board.with_variable(variable("topic", "Topic", 'rocketmq_messages_in_total{cluster=~"$cluster"}'))
    lag = f"rocketmq_consumer_lag_messages{{{OF_TOPIC}}}"
    board.with_variable(variable("group", "Group", lag, of="consumer_group"))
    summary(board)
    topics(board)
    groups(board)
    troubles(board)
    by_broker(board)
    return board


def summary(board: Dashboard) -> None:
    row(
        board,
        "At a glance",
        number(
            "Messages in",
            "Stored each second.",
            Query(f"sum(rate(rocketmq_messages_in_total{{{OF_TOPIC}}}[$__rate_interval])) or vector(0)"),
            unit=MESSAGES_S,
            width=4,
        ),
        number(
            "Messages out",
            "Delivered each second, to all groups shown.",
            Query(f"sum(rate(rocketmq_messages_out_total{{{OF}}}[$__rate_interval])) or vector(0)"),
            unit=MESSAGES_S,
            width=4,
        ),
        number("Lag", "Not acknowledged yet.", Query(f"sum({LAG}) or vector(0)"), width=4),
        number(
            "Oldest message",
            "How long the oldest one that is not acknowledged has waited.",
            Query(f"max({OLDEST}) or vector(0)"),
            unit=TIME_S,
            steps=Steps(GREEN, ((300, YELLOW), (900, RED))),
            width=4,
        ),
        number(
            "Redelivered",
            "Messages delivered at a later attempt than the first, in the time shown.",
            Query(f"round(sum(increase(kourou_redelivered_messages_total{{{OF}}}[$__range]))) or vector(0)"),
            width=4,
        ),
        number(
            "Dead letters",
            "Messages that no attempt got acknowledged, in the time shown.",
            Query(f"round(sum(increase({DEAD_LETTERS}[$__range]))) or vector(0)"),
            steps=NONE_IS_GOOD,
            width=4,
        ),
        listing(
            "Groups",
            "How far each group is with each topic, over all brokers. With no group yet there is a line of `none`.",
            {
                "Lag": Query(or_none(f"sum by ({BY}) ({LAG})", "consumer_group")),
                "In flight": Query(_sum("rocketmq_consumer_inflight_messages")),
                "Ready": Query(_sum("rocketmq_consumer_ready_messages")),
                "Oldest": Query(or_none(f"max by ({BY}) ({OLDEST})", "consumer_group")),
                "Delivered": Query(or_none(rate("rocketmq_messages_out_total", BY, OF), "consumer_group")),
            },
            units={"Lag": NUMBER, "Oldest": TIME_S, "Delivered": MESSAGES_S},
        ),
    )


def topics(board: Dashboard) -> None:
    stored = f"rocketmq_messages_in_total{{{OF_TOPIC}}}"
    volume = f"rocketmq_throughput_in_total{{{OF_TOPIC}}}"
    row(
        board,
        "Topics",
        graph(
            "Messages in, by topic",
            "Stored each second, on all brokers.",
            Query(or_none(rate("rocketmq_messages_in_total", "topic", OF_TOPIC), "topic"), "{{topic}}"),
            unit=MESSAGES_S,
        ),
        graph(
            "Bytes in, by topic",
            "Of the messages stored, each second.",
            Query(or_none(rate("rocketmq_throughput_in_total", "topic", OF_TOPIC), "topic"), "{{topic}}"),
            unit=BYTES_S,
        ),
        graph(
            "Size of a message, by topic",
            "The mean of what was stored.",
            Query(
                or_none(
                    f"sum by (topic) (rate({volume}[$__rate_interval])) "
                    f"/ (sum by (topic) (rate({stored}[$__rate_interval])) > 0)",
                    "topic",
                ),
                "{{topic}}",
            ),
            unit=BYTES,
        ),
    )


def groups(board: Dashboard) -> None:
    row(
        board,
        "Groups",
        graph(
            "Messages out",
            "Delivered each second; redeliveries too.",
            Query(or_none(rate("rocketmq_messages_out_total", BY, OF), "consumer_group"), NAMED),
            unit=MESSAGES_S,
        ),
        graph(
            "Acknowledged",
            "Each second. In the long run this is what went in.",
            Query(or_none(rate("kourou_acknowledged_messages_total", BY, OF), "consumer_group"), NAMED),
            unit=MESSAGES_S,
        ),
        graph(
            "Bytes out",
            "Of the messages delivered, each second.",
            Query(or_none(rate("rocketmq_throughput_out_total", BY, OF), "consumer_group"), NAMED),
            unit=BYTES_S,
        ),
        graph(
            "Lag",
            "Messages that the group has not acknowledged. More than 1000, and growing for 10 minutes, is an alert.",
            Query(or_none(LAG, "consumer_group"), NAMED),
        ),
        graph(
            "Ready",
            "Of the lag, what consumers could receive now: if it grows, they are too few or too slow.",
            Query(_sum("rocketmq_consumer_ready_messages"), NAMED),
        ),
        graph(
            "In flight",
            "Of the lag, what consumers have received and not acknowledged yet.",
            Query(_sum("rocketmq_consumer_inflight_messages"), NAMED),
        ),
    )


def troubles(board: Dashboard) -> None:
    row(
        board,
        "Waiting, redelivery, dead letters",
        graph(
            "Oldest message not acknowledged",
            "Its age. Over 15 minutes is an alert.",
            Query(or_none(f"max by ({BY}) ({OLDEST})", "consumer_group"), NAMED),
            unit=TIME_S,
            line_at=900,
            width=6,
        ),
        graph(
            "Oldest message nobody has received",
            "The age of what waits in the queue.",
            Query(
                or_none(
                    f"max by ({BY}) (rocketmq_consumer_queueing_latency_milliseconds{{{OF}}}) / 1000", "consumer_group"
                ),
                NAMED,
            ),
            unit=TIME_S,
            width=6,
        ),
        graph(
            "Redelivered",
            "Delivered at a later attempt than the first, each second: consumers that fail, or are too slow.",
            Query(or_none(rate("kourou_redelivered_messages_total", BY, OF), "consumer_group"), NAMED),
            unit=MESSAGES_S,
            width=6,
        ),
        graph(
            "Dead letters",
            "Each minute. They are in the topic %DLQ% and the group's name.",
            Query(
                or_none(f"round(sum by ({BY}) (increase({DEAD_LETTERS}[$__rate_interval])))", "consumer_group"), NAMED
            ),
            bars=True,
            width=6,
        ),
    )


def by_broker(board: Dashboard) -> None:
    row(
        board,
        "By broker",
        graph(
            "Messages in",
            "Of the topics shown, each second. A line far below the others: clients do not reach that broker.",
            Query(or_none(rate("rocketmq_messages_in_total", "node_id", OF_TOPIC), "node_id"), "{{node_id}}"),
            unit=MESSAGES_S,
            stacked=True,
        ),
        graph(
            "Messages out",
            "To the groups shown, each second.",
            Query(or_none(rate("rocketmq_messages_out_total", "node_id", OF), "node_id"), "{{node_id}}"),
            unit=MESSAGES_S,
            stacked=True,
        ),
        graph(
            "Lag",
            "Of the groups shown. One broker far above the others: its consumer is stuck, or there is none for it.",
            Query(or_none(f"sum by (node_id) (rocketmq_consumer_lag_messages{{{OF}}})", "node_id"), "{{node_id}}"),
            stacked=True,
        ),
    )


def _sum(metric: str) -> str:
    return or_none(f"sum by ({BY}) ({metric}{{{OF}}})", "consumer_group")
