"""A function that is called with each message, eight at a time; two members share the work of a group.

    kourou topic create pictures --queues 4
    kourou group create painters
    python clients/python/examples/push.py

`kourou dev` starts a local cluster to try it on.
"""

from __future__ import annotations

import threading
import time

from kourou import Message, Producer, PushConsumer, ReceivedMessage

PICTURES = 40


class Painter:
    """A member of the group; in life each would be a process."""

    painted = threading.Semaphore(0)

    def __init__(self) -> None:
        self.pictures: list[str] = []
        self.consumer = PushConsumer("painters", {"pictures": "*"}, self._paint, concurrency=8)

    def _paint(self, message: ReceivedMessage) -> None:
        """Runs in threads. What it raises, or False, makes the message come again after the group's backoff."""
        time.sleep(0.01)
        self.pictures.append(message.body.decode())
        self.painted.release()


def main() -> None:
    painters = [Painter(), Painter()]
    # The queues are shared out among the members, and again when one comes or leaves.
    with painters[0].consumer, painters[1].consumer, Producer() as producer:
        producer.send_many([Message("pictures", f"picture {number}".encode()) for number in range(PICTURES)])
        for _ in range(PICTURES):
            Painter.painted.acquire(timeout=30)
    pictures = [picture for painter in painters for picture in painter.pictures]
    print(f"{len(pictures)} calls, {len(set(pictures))} pictures")


if __name__ == "__main__":
    main()
