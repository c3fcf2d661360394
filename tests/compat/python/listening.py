"""The command `listen`."""

import threading
import time
from typing import Any

from rocketmq import ConsumeResult, LitePushConsumer, MessageListener, PushConsumer

from tests.compat.python.orders import Arguments, Orders, Results, configuration, subscription


def listen(endpoints: str, arguments: Arguments, orders: Orders, results: Results) -> None:
    """Consumes "topic" as a member of "group" until it is to stop; with "lite_topics" (a list) those of them, and
    orders to "subscribe" or "unsubscribe" change what they are. The listener fails on the first attempt of what begins
    with "bad", and always on what begins with "dead", until it is "mended". With "hangs" it never returns from what
    begins with "hang". With "alone" one thread calls it, else many."""
    listener = _Listener(results, "hangs" in arguments)
    tls = arguments.get("tls", False)
    where, group = configuration(endpoints), arguments["group"]
    consumer: Any
    if "lite_topics" in arguments:
        consumer = LitePushConsumer(where, group, arguments["topic"], listener, tls_enable=tls)
    else:
        threads = {"consumption_thread_count": 1} if "alone" in arguments else {}
        consumer = PushConsumer(where, group, listener, subscription(arguments), tls_enable=tls, **threads)
    try:
        consumer.startup()
    except Exception as problem:
        results.refused(problem)
        return
    try:
        for lite_topic in arguments.get("lite_topics", ()):
            consumer.subscribe_lite(lite_topic)
        results.told({"started": ""})
        for order in orders:
            listener.mended = "mended" in order
            subscribe_as_told(consumer, order, results)
    finally:
        consumer.shutdown()


class _Listener(MessageListener):
    def __init__(self, results: Results, hangs: bool) -> None:
        self.mended = False
        self._results = results
        self._hangs = hangs

    def consume(self, message: Any) -> ConsumeResult:
        self._results.received(message)
        if self._hangs and message.body.startswith(b"hang"):
            threading.Event().wait()
        first_of_bad = message.body.startswith(b"bad") and message.delivery_attempt == 1
        fails = first_of_bad or message.body.startswith(b"dead")
        return ConsumeResult.FAILURE if fails and not self.mended else ConsumeResult.SUCCESS


def subscribe_as_told(consumer: Any, order: Arguments, results: Results) -> None:
    """A consumer of lite topics changes what they are."""
    try:
        if "subscribe" in order:
            _subscribe(consumer, order["subscribe"])
            results.told({"subscribed": order["subscribe"]})
        if "unsubscribe" in order:
            consumer.unsubscribe_lite(order["unsubscribe"])
            results.told({"unsubscribed": order["unsubscribe"]})
    except Exception as problem:
        results.refused(problem)


def _subscribe(consumer: Any, lite_topic: str) -> None:
    """Unlike others a simple consumer has begun before it knows its quota, and takes that for 0."""
    for _ in range(100):
        try:
            consumer.subscribe_lite(lite_topic)
        except Exception as problem:
            if "quota: 0" not in str(problem):
                raise
            time.sleep(0.1)
        else:
            return
    raise AssertionError("no settings came within 10 s")
