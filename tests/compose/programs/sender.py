"""Sends one message to each topic it is told on stdin, a name a line, and tries until it succeeds.

It lives on while the cluster around it changes, and says "sent TOPIC" after each.
"""

import sys
import time

from kourou import KourouError, Message, Producer

PATIENCE_S = 60.0


def send(producer: Producer, topic: str) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            producer.send(Message(topic, b"found"))
            return
        except KourouError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.2)


def main() -> None:
    with Producer() as producer:
        for line in sys.stdin:
            send(producer, line.strip())
            print(f"sent {line.strip()}", flush=True)


if __name__ == "__main__":
    main()
