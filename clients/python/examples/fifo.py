"""The steps of an order are heard one after the other; different orders do not wait for each other.

    kourou topic create orders --type fifo
    kourou group create billing --order fifo
    python clients/python/examples/fifo.py

`kourou dev` starts a local cluster to try it on.
"""

from __future__ import annotations

import threading
from collections import defaultdict

from kourou import Message, Producer, PushConsumer, ReceivedMessage

STEPS = ["created", "paid", "packed", "shipped"]
ORDERS = ["order-1", "order-2", "order-3"]


def main() -> None:
    heard: defaultdict[str, list[str]] = defaultdict(list)
    complete = threading.Event()
    failed_once: set[str] = set()

    def listen(message: ReceivedMessage) -> bool:
        order, step = str(message.message_group), message.body.decode()
        if step == "paid" and order not in failed_once:
            # The message comes again, and what follows it waits for it.
            failed_once.add(order)
            return False
        heard[order].append(step)
        if sum(map(len, heard.values())) == len(STEPS) * len(ORDERS):
            complete.set()
        return True

    with Producer() as producer:
        for step in STEPS:
            # The message group is what keeps the order: all of its messages go to one queue.
            producer.send_many([Message("orders", step.encode(), message_group=order) for order in ORDERS])
    with PushConsumer("billing", {"orders": "*"}, listen):
        complete.wait(60)
    for order in ORDERS:
        print(order, *heard[order])


if __name__ == "__main__":
    main()
