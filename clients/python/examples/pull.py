"""Queues read by offset: all of a topic at once, then what came since a time, and what was committed.

    kourou topic create measurements --queues 2
    kourou group create reports
    python clients/python/examples/pull.py

`kourou dev` starts a local cluster to try it on.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from kourou import Message, Producer, PullConsumer


def main() -> None:
    with Producer() as producer, PullConsumer("reports", {"measurements": "*"}) as consumer:
        producer.send_many([Message("measurements", b"%d" % number) for number in range(6)])
        time.sleep(0.1)
        noon = datetime.now(UTC)
        producer.send_many([Message("measurements", b"%d" % number) for number in range(6, 10)])

        print("all:", total(consumer))
        for queue in consumer.queues("measurements"):
            consumer.seek(queue, consumer.offset(queue, noon))
        print("since noon:", total(consumer))
        for queue in consumer.queues("measurements"):
            consumer.commit(queue)

        producer.send(Message("measurements", b"100"))

    # Whoever reads for the group after a restart goes on at what was committed.
    with PullConsumer("reports", {"measurements": "*"}) as consumer:
        print("not reported yet:", total(consumer))


def total(consumer: PullConsumer) -> int:
    """Of all that the queues hold behind their positions."""
    numbers: list[int] = []
    for queue in consumer.queues("measurements"):
        while messages := consumer.pull(queue, wait_s=0):
            numbers += [int(message.body) for message in messages]
    return sum(numbers)


if __name__ == "__main__":
    main()
