"""The same names in two namespaces, through the command and the library."""

import json
import threading
from collections.abc import Callable

from kourou import Message, Producer, PushConsumer, ReceivedMessage
from tests.cluster.cluster import Dev


def test_namespaces_keep_their_messages_apart(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev()
    for topic in ("orders", "team/orders"):
        dev.kourou("topic", "create", topic)
        dev.kourou("send", topic, f"by the command to {topic}")
    with Producer(dev.namesrv, namespace="team") as producer:
        producer.send(Message("orders", b"by the library"))
    heard: list[str] = []
    both = threading.Event()

    def listen(message: ReceivedMessage) -> None:
        heard.append(message.body.decode())
        if len(heard) == 2:
            both.set()

    with PushConsumer("readers", {"orders": "*"}, listen, dev.namesrv, namespace="team"):
        assert both.wait(30)
    assert sorted(heard) == ["by the command to team/orders", "by the library"]
    lines = dev.kourou("receive", "orders", "--group", "readers", "--idle-s", "2", "--json").stdout.splitlines()
    assert [json.loads(line)["body"] for line in lines] == ["by the command to orders"]
    groups = {row["name"] for row in json.loads(dev.kourou("group", "list", "--json").stdout)}
    assert groups == {"readers", "team/readers"}
