"""Programs with the official client, unchanged, each run as a process of its own: its protocol buffers and ours have
the same names. programs.py NAME ENDPOINTS, with the keyword arguments as JSON on standard input; writes its result as
one line of JSON."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from rocketmq import (
    ClientConfiguration,
    ConsumeResult,
    Credentials,
    FilterExpression,
    LitePushConsumer,
    LiteSimpleConsumer,
    Message,
    MessageListener,
    Producer,
    PushConsumer,
    SimpleConsumer,
    TransactionChecker,
    TransactionResolution,  # pyright: ignore[reportAttributeAccessIssue]
)
from rocketmq.grpc_protocol import FilterType  # pyright: ignore[reportAttributeAccessIssue]

AWAIT_S = 1
"""How long a poll waits."""


def configuration(endpoints: str) -> ClientConfiguration:
    return ClientConfiguration(endpoints, Credentials())


def message(topic: str, body: bytes, **fields: Any) -> Message:
    made = Message()
    made.topic = topic
    made.body = body
    properties = fields.pop("properties", {})
    for name, value in fields.items():
        setattr(made, name, value)
    for name, value in properties.items():
        made.add_property(name, value)
    return made


def seen(received: Any) -> dict[str, Any]:
    return {
        "topic": received.topic,
        "body": received.body.hex(),
        "id": received.message_id,
        "tag": received.tag,
        "keys": sorted(received.keys),
        "properties": received.properties,
        "attempt": received.delivery_attempt,
        "corrupted": received.corrupted,
    }


def send(endpoints: str, topic: str, messages: list[dict[str, Any]], asynchronously: bool = False) -> list[str]:
    """The message ids."""
    producer = Producer(configuration(endpoints), [topic])
    producer.startup()
    try:
        made = [message(topic, bytes.fromhex(fields.pop("body")), **fields) for fields in messages]
        if asynchronously:
            return [future.result(10).message_id for future in [producer.send_async(each) for each in made]]
        return [producer.send(each).message_id for each in made]
    finally:
        producer.shutdown()


def send_and_recall(endpoints: str, topic: str, bodies: list[str], due_s: int) -> dict[str, Any]:
    """Sends delayed messages and recalls the last one; their ids, and what the recall gave."""
    producer = Producer(configuration(endpoints), [topic])
    producer.startup()
    try:
        sent = [producer.send(message(topic, body.encode(), delivery_timestamp=due_s)) for body in bodies]
        recalled = producer.recall_message(topic, str(sent[-1].recall_handle))
        return {"ids": [each.message_id for each in sent], "recalled": str(getattr(recalled, "message_id", recalled))}
    finally:
        producer.shutdown()


class Checker(TransactionChecker):
    """Answers the same to whatever it is asked."""

    def __init__(self, answer: str, checks: int) -> None:
        self.checked: list[str] = []
        self.finished = threading.Event()
        self._answer = TransactionResolution.Value(answer)
        self._checks = checks

    def check(self, message: Any) -> Any:
        self.checked.append(message.message_id)
        if len(self.checked) >= self._checks:
            self.finished.set()
        return self._answer


def transact(
    endpoints: str,
    topic: str,
    resolution: str = "",
    answer: str = "TRANSACTION_RESOLUTION_UNSPECIFIED",
    checks: int = 0,
) -> dict[str, Any]:
    """One message in a transaction, unless `resolution` is empty; then it answers so many checks. `die`: at once."""
    checker = Checker(answer, checks)
    producer = Producer(configuration(endpoints), [topic], checker=checker)
    producer.startup()
    sent = None
    try:
        if resolution:
            transaction = producer.begin_transaction()
            sent = producer.send(message(topic, b"half"), transaction).message_id
            if resolution == "die":
                print(json.dumps({"sent": sent, "checked": []}), flush=True)
                os._exit(0)
            getattr(transaction, resolution)()
        if checks:
            checker.finished.wait(40)
            time.sleep(0.5)  # the last answer leaves in the background
    finally:
        producer.shutdown()
    return {"sent": sent, "checked": checker.checked}


def send_failing(endpoints: str, topic: str, kind: str) -> str:
    """What the user sees of a send that cannot be."""
    producer = Producer(configuration(endpoints), None)
    producer.startup()
    fields = {
        "normal": {},
        "fifo": {"message_group": "g"},
        "delay": {"delivery_timestamp": int(time.time()) + 60},
        "large": {},
    }[kind]
    body = bytes(4 * 1024 * 1024 + 1) if kind == "large" else b"x"
    try:
        producer.send(message(topic, body, **fields))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        producer.shutdown()
    return "was sent"


def receive(
    endpoints: str, group: str, topic: str, count: int, expression: str = "*", kind: str = "TAG", patience: int = 8
) -> list[dict[str, Any]]:
    """Until so many came, or for that many polls in a row none."""
    wanted = FilterExpression(expression, FilterType.Value(kind))
    consumer = SimpleConsumer(configuration(endpoints), group, {topic: wanted}, await_duration=AWAIT_S)
    consumer.startup()
    received: list[dict[str, Any]] = []
    empty = 0
    try:
        while len(received) < count and empty < patience:
            batch: Any = consumer.receive(32, 30)
            empty = 0 if batch else empty + 1
            for each in batch:
                received.append(seen(each))
                consumer.ack(each)
    finally:
        consumer.shutdown()
    return received


def change_invisible_duration(endpoints: str, group: str, topic: str) -> dict[str, Any]:
    """Of one message: it is given back, comes again, is kept away, and is acknowledged by its newest handle."""
    consumer = SimpleConsumer(configuration(endpoints), group, {topic: FilterExpression()}, await_duration=AWAIT_S)
    consumer.startup()

    def next_one() -> Message:
        for _ in range(8):
            batch: Any = consumer.receive(1, 30)
            if batch:
                return batch[0]
        raise AssertionError("nothing came")

    try:
        first = next_one()
        stale = first.receipt_handle
        consumer.change_invisible_duration(first, 1)
        second = next_one()
        consumer.change_invisible_duration(second, 60)
        renewed = second.receipt_handle
        consumer.ack(second)
        first.receipt_handle = stale
        try:
            consumer.ack(first)
            stale_ack = "taken"
        except Exception as error:
            stale_ack = str(error)
        return {
            "attempts": [first.delivery_attempt, second.delivery_attempt],
            "handles": len({stale, second.receipt_handle, renewed}),
            "stale_ack": stale_ack,
        }
    finally:
        consumer.shutdown()


class Listener(MessageListener):
    """Fails on the first attempt of what begins with "bad", and always on what begins with "dead"."""

    def __init__(self, done: Callable[[list[dict[str, Any]]], bool]) -> None:
        self.heard: list[dict[str, Any]] = []
        self.finished = threading.Event()
        self._done = done
        self._lock = threading.Lock()

    def consume(self, message: Any) -> ConsumeResult:
        with self._lock:
            self.heard.append(seen(message) | {"at_s": time.monotonic()})
            if self._done(self.heard):
                self.finished.set()
        fails = (message.body.startswith(b"bad") and message.delivery_attempt == 1) or message.body.startswith(b"dead")
        return ConsumeResult.FAILURE if fails else ConsumeResult.SUCCESS


def receive_failing(endpoints: str, group: str, topic: str, expression: str) -> str:
    """What the user sees of a filter that is none."""
    wanted = FilterExpression(expression, FilterType.SQL)
    consumer = SimpleConsumer(configuration(endpoints), group, {topic: wanted}, await_duration=AWAIT_S)
    consumer.startup()
    try:
        consumer.receive(32, 30)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        consumer.shutdown()
    return "was received"


def listen_failing(endpoints: str, group: str, topic: str, expression: str) -> str:
    """The same, of a push consumer."""
    wanted = FilterExpression(expression, FilterType.SQL)
    consumer = PushConsumer(configuration(endpoints), group, Listener(bool), {topic: wanted})
    try:
        consumer.startup()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    consumer.shutdown()
    return "has started"


def listen(
    endpoints: str, group: str, topic: str, count: int, expression: str = "*", kind: str = "TAG"
) -> list[dict[str, Any]]:
    """Until so many deliveries, and a little longer: acknowledgements are on their way."""
    listener = Listener(lambda heard: len(heard) >= count)
    wanted = FilterExpression(expression, FilterType.Value(kind))
    consumer = PushConsumer(configuration(endpoints), group, listener, {topic: wanted})
    consumer.startup()
    try:
        listener.finished.wait(40)
        time.sleep(2)
    finally:
        consumer.shutdown()
    return listener.heard


def transfer(endpoints: str, group: str, topic: str, count: int) -> list[str]:
    """Sends, and listens at the same time."""
    listener = Listener(lambda heard: len(heard) >= count)
    consumer = PushConsumer(configuration(endpoints), group, listener, {topic: FilterExpression()})
    consumer.startup()
    try:
        send(endpoints, topic, [{"body": f"{number}".encode().hex()} for number in range(count)])
        listener.finished.wait(30)
    finally:
        consumer.shutdown()
    return sorted(each["body"] for each in listener.heard)


def listen_lite(endpoints: str, group: str, topic: str, lite_topics: list[str], count: int) -> list[dict[str, Any]]:
    """Subscribes to lite topics, and listens until so many deliveries."""
    listener = Listener(lambda heard: len(heard) >= count)
    consumer = LitePushConsumer(configuration(endpoints), group, topic, listener)
    consumer.startup()
    try:
        for lite_topic in lite_topics:
            consumer.subscribe_lite(lite_topic)
        listener.finished.wait(40)
        time.sleep(2)
    finally:
        consumer.shutdown()
    return listener.heard


def receive_lite(endpoints: str, group: str, topic: str, lite_topics: list[str], count: int) -> dict[str, Any]:
    """What a simple consumer of lite topics gets, and what it is told when it wants too many of them."""
    consumer = LiteSimpleConsumer(topic, configuration(endpoints), group, await_duration=AWAIT_S)
    consumer.startup()
    received: list[dict[str, Any]] = []
    refusal = ""
    try:
        _subscribe_when_settings_are_there(consumer, lite_topics[0])
        for lite_topic in lite_topics:
            try:
                consumer.subscribe_lite(lite_topic)
            except Exception as error:
                refusal = str(error)
        ends_s = time.monotonic() + 30
        while len(received) < count and time.monotonic() < ends_s:
            batch: Any = consumer.receive(32, 30)
            for each in batch or []:
                received.append(seen(each) | {"lite_topic": each.lite_topic})
                consumer.ack(each)
        consumer.unsubscribe_lite(lite_topics[0])
    finally:
        consumer.shutdown()
    return {"received": received, "refusal": refusal}


def _subscribe_when_settings_are_there(consumer: LiteSimpleConsumer, lite_topic: str) -> None:
    """Unlike other consumers it has begun before it knows its quota, and takes that for 0."""
    for _ in range(50):
        try:
            consumer.subscribe_lite(lite_topic)
        except Exception as error:
            if "quota: 0" not in str(error):
                raise
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    program, address = sys.argv[1:3]
    print(json.dumps(globals()[program](address, **json.load(sys.stdin))))
