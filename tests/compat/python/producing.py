"""The command `produce`."""

from typing import Any

from rocketmq import (
    Message,
    Producer,
    TransactionChecker,
    TransactionResolution,  # pyright: ignore[reportAttributeAccessIssue]
)

from tests.compat.python.orders import Arguments, Orders, Results, configuration

ANSWER_S = 20


def produce(endpoints: str, arguments: Arguments, orders: Orders, results: Results) -> None:
    """A producer of "topic". It obeys its arguments, and with "stays" further orders: sends "messages", all at once
    with "asynchronously", or each in a transaction that ends by "end" (commit, rollback, open); recalls the message
    with the handle "recall". Tells the id of each message, and what was refused. Asked about an open transaction it
    says "answer" (COMMIT, ROLLBACK, UNKNOWN)."""
    checker = _Checker(arguments["answer"], results) if "answer" in arguments else None
    producer = Producer(
        configuration(endpoints), [arguments["topic"]], checker=checker, tls_enable=arguments.get("tls", False)
    )
    producer.startup()
    try:
        _obey(producer, arguments["topic"], arguments, results)
        if "stays" in arguments:
            results.told({"started": ""})
            for order in orders:
                _obey(producer, arguments["topic"], order, results)
    finally:
        producer.shutdown()


class _Checker(TransactionChecker):
    def __init__(self, answer: str, results: Results) -> None:
        name = "TRANSACTION_RESOLUTION_UNSPECIFIED" if answer == "UNKNOWN" else answer
        self._answer = TransactionResolution.Value(name)
        self._results = results

    def check(self, message: Any) -> Any:
        self._results.told({"checked": message.message_id})
        return self._answer


def _obey(producer: Producer, topic: str, order: Arguments, results: Results) -> None:
    if "recall" in order:
        _recall(producer, topic, order["recall"], results)
    try:
        messages = [_message(topic, **fields) for fields in order.get("messages", ())]
    except Exception as problem:
        results.refused(problem)
        return
    if "asynchronously" in order:
        _send_at_once(producer, messages, results)
    else:
        for message in messages:
            _send(producer, message, order.get("end", ""), results)


def _message(
    topic: str,
    body: str,
    keys: tuple[str, ...] = (),
    properties: dict[str, str] | None = None,
    group: str | None = None,
    deliver_at_ms: int | None = None,
    **fields: Any,
) -> Message:
    """The client takes the delivery time in whole seconds."""
    made = Message()
    made.topic = topic
    made.body = bytes.fromhex(body)
    if group is not None:
        made.message_group = group
    if deliver_at_ms is not None:
        made.delivery_timestamp = deliver_at_ms // 1000
    for key in keys:
        made.keys = key
    for name, value in (properties or {}).items():
        made.add_property(name, value)
    for name, value in fields.items():  # tag, priority, lite_topic
        setattr(made, name, value)
    return made


def _send(producer: Producer, message: Message, end: str, results: Results) -> None:
    try:
        if end:
            transaction = producer.begin_transaction()
            receipt = producer.send(message, transaction)
            if end != "open":
                getattr(transaction, end)()
        else:
            receipt = producer.send(message)
    except Exception as problem:
        results.refused(problem)
    else:
        results.told(_sent(receipt))


def _send_at_once(producer: Producer, messages: list[Message], results: Results) -> None:
    for future in [producer.send_async(message) for message in messages]:
        try:
            results.told(_sent(future.result(ANSWER_S)))
        except Exception as problem:
            results.refused(problem)


def _sent(receipt: Any) -> dict[str, Any]:
    handle = {"recall_handle": receipt.recall_handle} if receipt.recall_handle else {}
    return {"id": receipt.message_id, **handle}


def _recall(producer: Producer, topic: str, handle: str, results: Results) -> None:
    try:
        recalled = producer.recall_message(topic, handle)
    except Exception as problem:
        results.refused(problem)
    else:
        results.told({"recalled": str(getattr(recalled, "message_id", recalled))})
