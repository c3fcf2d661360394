"""A message that cannot be handled comes again, then goes to the group's dead letters; the others are not held up.

    kourou topic create payments
    kourou group create clearing --max-attempts 3 --backoff 1s
    python clients/python/examples/retries_and_dead_letters.py

`kourou dev` starts a local cluster to try it on.
"""

from __future__ import annotations

import time

from kourou import Message, Producer, PushConsumer, ReceivedMessage, SimpleConsumer, TopicNotFound


def main() -> None:
    attempts: list[int] = []
    handled: list[str] = []

    def listen(message: ReceivedMessage) -> None:
        if message.body != b"not a number":
            handled.append(f"payment of {int(message.body)}")
            return
        attempts.append(message.attempt)
        int(message.body)  # raises: the message comes again after the group's backoff

    with Producer() as producer:
        producer.send_many([Message("payments", body) for body in (b"250", b"not a number", b"12")])
    # The dead letters of a group are a topic like any other: %DLQ% and the group's name.
    clerk = SimpleConsumer("clerks", {"%DLQ%clearing": "*"})
    with PushConsumer("clearing", {"payments": "*"}, listen), clerk:
        [dead] = receive(clerk)
        clerk.ack(dead)
    print(*sorted(handled), sep=", ")
    print("attempts with the other one:", *attempts)
    print("dead letter:", dead.body.decode(), "from topic", dead.dead_letter_of and dead.dead_letter_of[0])


def receive(consumer: SimpleConsumer) -> list[ReceivedMessage]:
    """The dead-letter topic comes with its first message."""
    while True:
        try:
            if messages := consumer.receive(1, wait_s=2):
                return messages
        except TopicNotFound:
            time.sleep(0.2)


if __name__ == "__main__":
    main()
