"""The official Python client with FIFO and PRIORITY topics."""

from pathlib import Path
from typing import Any

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.log.v1 import record_pb2
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.compat.test_official_client import Official

EACH = 8


@pytest.fixture
def official(cluster: Cluster, tmp_path: Path) -> Official:
    return Official(cluster, tmp_path)


def bodies(heard: list[dict[str, Any]]) -> list[str]:
    return [bytes.fromhex(one["body"]).decode() for one in heard]


async def test_message_groups_are_consumed_in_order(official: Official, operator: Operator, name: str) -> None:
    await operator.create_topic(name, message_type=v2.FIFO)
    await operator.create_group(name, order=record_pb2.ORDER_FIFO, max_attempts=3)
    kinds = {("b", 4): "dead", ("a", 2): "bad"}
    messages = [
        {"body": f"{kinds.get((group, number), 'good')} {group} {number}".encode().hex(), "message_group": group}
        for number in range(EACH)
        for group in "abc"
    ]
    await official.run("send", topic=name, messages=messages)
    # This client tries again by itself and does not count that: what fails once is heard until it gives up.
    heard = bodies(await official.run("listen", group=name, topic=name, count=3 * EACH + 4))
    for group in "abc":
        numbers = [int(body.split()[2]) for body in heard if body.split()[1] == group]
        assert numbers == sorted(numbers), f"{group} went back: {numbers}"
        assert set(numbers) == set(range(EACH))
    assert heard.count("dead b 4") == 3
    assert await operator.lag(name, name) == 0, "what it gave up is among the dead letters"


async def test_the_most_urgent_messages_come_first(official: Official, operator: Operator, name: str) -> None:
    await operator.create_topic(name, queues=3, message_type=v2.PRIORITY, brokers=["broker-a"])
    await operator.create_group(name)
    messages = [{"body": str(priority).encode().hex(), "priority": priority} for priority in (0, 2, 1, 5, 1, 0)]
    await official.run("send", topic=name, messages=messages)
    assert bodies(await official.run("listen", group=name, topic=name, count=6)) == ["2", "5", "1", "1", "0", "0"]
