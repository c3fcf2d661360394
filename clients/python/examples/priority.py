"""Urgent messages overtake the others.

    kourou topic create jobs --type priority --queues 4
    python clients/python/examples/priority.py

`kourou dev` starts a local cluster to try it on.
"""

from __future__ import annotations

from kourou import Message, Producer, SimpleConsumer


def main() -> None:
    with Producer() as producer:
        # As many levels as a broker has queues: 0 to 3, and what is above counts as the highest.
        for number, priority in enumerate([0, 2, 3, 1, 2, 0]):
            producer.send(Message("jobs", f"job {number}, priority {priority}".encode(), priority=priority))

    with SimpleConsumer("workers", {"jobs": "*"}) as consumer:
        for _ in range(6):
            [message] = consumer.receive(1, wait_s=10)
            print(message.body.decode())
            consumer.ack(message)


if __name__ == "__main__":
    main()
