"""The command `simple`."""

import asyncio
import time
from typing import Any

from rocketmq import LiteSimpleConsumer, SimpleConsumer

from tests.compat.python.listening import subscribe_as_told
from tests.compat.python.orders import Arguments, Orders, Results, configuration, subscription

AWAIT_S = 1
ANSWER_S = 20


def simple(endpoints: str, arguments: Arguments, orders: Orders, results: Results) -> None:
    """A simple consumer of "topic" for "group", which obeys until it is to stop. "receive": so many messages at most,
    each told, then how many they were; "ack": with that it acknowledges them. "settle" and "change" name a message by
    its id and "attempt": acknowledge it, or change its invisible time to "seconds". With "asynchronously" it uses the
    client's other methods. With "lite" it reads lite topics, and orders to "subscribe" or "unsubscribe" say which."""
    where, group, tls = configuration(endpoints), arguments["group"], arguments.get("tls", False)
    if "lite" in arguments:
        consumer = LiteSimpleConsumer(arguments["topic"], where, group, AWAIT_S, tls_enable=tls)
    else:
        consumer = SimpleConsumer(where, group, subscription(arguments), AWAIT_S, tls_enable=tls)
    consumer.startup()
    asyncio.set_event_loop(asyncio.new_event_loop())  # for the futures of its other methods
    held = _Held(consumer, results)
    try:
        for order in orders:
            try:
                held.obey(order)
            except Exception as problem:
                results.refused(problem)
            subscribe_as_told(consumer, order, results)
    finally:
        consumer.shutdown()


class _Held:
    """The messages that the consumer has, or had."""

    def __init__(self, consumer: SimpleConsumer, results: Results) -> None:
        self._consumer = consumer
        self._results = results
        self._messages: dict[tuple[str, int], Any] = {}

    def obey(self, order: Arguments) -> None:
        asynchronously = "asynchronously" in order
        if "receive" in order:
            self._receive(order, asynchronously)
        if "settle" in order:
            self._ack(self._messages[order["settle"], order["attempt"]], asynchronously)
            self._results.told({"settled": order["settle"]})
        if "change" in order:
            message = self._messages[order["change"], order["attempt"]]
            if asynchronously:
                self._consumer.change_invisible_duration_async(message, order["seconds"])
            else:
                self._consumer.change_invisible_duration(message, order["seconds"])
            self._results.told({"changed": order["change"]})

    def _receive(self, order: Arguments, asynchronously: bool) -> None:
        if asynchronously:
            received = _result(self._consumer.receive_async(order["receive"], order["invisible_s"]))
        else:
            received: Any = self._consumer.receive(order["receive"], order["invisible_s"])
        for message in received or ():
            self._messages[message.message_id, message.delivery_attempt] = message
            if "ack" in order:
                self._ack(message, asynchronously)
            self._results.received(message)
        self._results.told({"received": str(len(received or ()))})

    def _ack(self, message: Any, asynchronously: bool) -> None:
        """The asynchronous one gives nothing to wait for."""
        if asynchronously:
            self._consumer.ack_async(message)
        else:
            self._consumer.ack(message)


def _result(future: Any) -> Any:
    """Of asyncio's kind, but set by a thread of the client: no loop would wake for it."""
    ends_s = time.monotonic() + ANSWER_S
    while not future.done():
        if time.monotonic() > ends_s:
            raise TimeoutError(f"no answer within {ANSWER_S} s")
        time.sleep(0.01)
    return future.result()
