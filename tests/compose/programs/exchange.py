"""Sends as many messages as it is told, and receives those of all others: exchange.py TOPIC GROUP NAME COUNT TOTAL.

Runs on the host as well as in a container: where the cluster is, the environment says.
"""

import json
import sys
import time

from kourou import Message, Producer, SimpleConsumer

PATIENCE_S = 40.0


def main(topic: str, group: str, name: str, count: int, total: int) -> None:
    with Producer() as producer:
        for number in range(count):
            producer.send(Message(topic, f"{name} {number}".encode()))
    received: list[str] = []
    until_s = time.monotonic() + PATIENCE_S
    with SimpleConsumer(group, {topic: "*"}) as consumer:
        while len(received) < total and time.monotonic() < until_s:
            messages = consumer.receive(wait_s=1)
            consumer.ack(messages)
            received += [message.body.decode() for message in messages]
    print(json.dumps(sorted(received)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
