"""The official Python client with delayed messages and transactions."""

import time
from pathlib import Path

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.compat.test_official_client import Official


@pytest.fixture
def official(cluster: Cluster, tmp_path: Path) -> Official:
    return Official(cluster, tmp_path)


async def test_a_delayed_message_comes_in_time_and_a_recalled_one_does_not(
    official: Official, operator: Operator, name: str
) -> None:
    await operator.create_topic(name, message_type=v2.DELAY)
    await operator.create_group(name)
    due_s = int(time.time()) + 5
    sent = await official.run("send_and_recall", topic=name, bodies=["soon", "recalled"], due_s=due_s)
    assert sent["recalled"] == sent["ids"][1]
    received = await official.run("receive", group=name, topic=name, count=1, patience=20)
    assert time.time() >= due_s
    assert [each["id"] for each in received] == sent["ids"][:1]
    assert await official.run("receive", group=name, topic=name, count=1, patience=2) == []


@pytest.mark.parametrize("resolution", ["commit", "rollback"])
async def test_a_transaction_ends_as_it_is_told(
    official: Official, operator: Operator, name: str, resolution: str
) -> None:
    await operator.create_topic(name, message_type=v2.TRANSACTION)
    await operator.create_group(name)
    sent = (await official.run("transact", topic=name, resolution=resolution))["sent"]
    received = await official.run(
        "receive", group=name, topic=name, count=1, patience=10 if resolution == "commit" else 3
    )
    assert [each["id"] for each in received] == ([sent] if resolution == "commit" else [])


async def test_another_producer_answers_for_one_that_died(official: Official, operator: Operator, name: str) -> None:
    await operator.create_topic(name, message_type=v2.TRANSACTION)
    await operator.create_group(name)
    sent = (await official.run("transact", topic=name, resolution="die"))["sent"]
    assert (await official.run("transact", topic=name, answer="COMMIT", checks=1))["checked"] == [sent]
    received = await official.run("receive", group=name, topic=name, count=1, patience=10)
    assert [each["id"] for each in received] == [sent]
