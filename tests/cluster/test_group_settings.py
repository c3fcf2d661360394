"""What `kourou group` sets is what consumers see."""

import json
import time

import pytest

from kourou import AsyncProducer, AsyncPushConsumer, Message, ReceivedMessage
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually

# Reading, giving back and receiving again take part of a second on a busy machine.
SLACK_S = 0.9


@pytest.mark.parametrize("backoff", ["1s,2s", "exponential:1s,2,1m"])
async def test_a_groups_backoff(cluster: Cluster, operator: Operator, name: str, backoff: str) -> None:
    await operator.create_topic(name)
    cluster.kourou("group", "create", name, "--backoff", "1h")
    cluster.kourou("group", "change", name, "--backoff", backoff)
    assert json.loads(cluster.kourou("group", "show", name, "--json").stdout)["backoff"] == backoff
    heard_s: list[float] = []

    async def listen(message: ReceivedMessage) -> bool:
        assert message.attempt == len(heard_s) + 1
        heard_s.append(time.monotonic())
        return message.attempt == 3

    async with (
        AsyncPushConsumer(name, {name: "*"}, listen, cluster.namesrv),
        AsyncProducer(cluster.namesrv) as producer,
    ):
        await producer.send(Message(name, b"x"))
        await eventually(lambda: len(heard_s) == 3, 15)
        first, second = heard_s[1] - heard_s[0], heard_s[2] - heard_s[1]
        assert 1 <= first < 1 + SLACK_S
        assert 2 <= second < 2 + SLACK_S

        async def settled() -> bool:
            return await operator.lag(name, name) == 0

        await eventually(settled)


async def test_members_that_subscribe_differently(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    cluster.kourou("group", "create", name)

    async def listen(message: ReceivedMessage) -> None:
        pass

    def differing() -> dict[str, list[str]]:
        """Clients by what they want."""
        shown = json.loads(cluster.kourou("group", "show", name, "--json").stdout)["differing_subscriptions"]
        assert all(each["topic"] == name for each in shown)
        return {each["filter"]: each["clients"] for each in shown}

    async with AsyncPushConsumer(name, {name: "a || b"}, listen, cluster.namesrv, client_id="one"):
        async with AsyncPushConsumer(name, {name: "a"}, listen, cluster.namesrv, client_id="two"):
            await eventually(lambda: differing() == {"a || b": ["one"], "a": ["two"]}, 15, 0.5)
            said = "members of a group subscribe differently"
            assert any(said in node.output and name in node.output for node in cluster.brokers)
        await eventually(lambda: differing() == {}, 15, 0.5)
