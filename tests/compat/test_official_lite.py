"""The official Python client with lite topics: it tells its access point alone what it reads."""

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.compat.test_official_client import Official

EACH = 4


@pytest.fixture
def official(cluster: Cluster, tmp_path: Path) -> Official:
    return Official(cluster, tmp_path)


def made(lite_topics: str, kind: str = "good") -> list[dict[str, Any]]:
    """This client sends a lite topic's messages to all brokers in turn: there is an order on each of them only."""
    return [
        {"body": f"{kind} {lite_topic} {number}".encode().hex(), "lite_topic": lite_topic}
        for number in range(EACH)
        for lite_topic in lite_topics
    ]


def bodies(heard: list[dict[str, Any]]) -> list[str]:
    return sorted(bytes.fromhex(one["body"]).decode() for one in heard)


async def test_a_listener_hears_the_lite_topics_that_it_subscribes_to(
    cluster: Cluster, official: Official, operator: Operator, name: str
) -> None:
    cluster.kourou("topic", "create", name, "--type", "lite")
    cluster.kourou("group", "create", name, "--lite", name, "--backoff", "1s")
    await official.run("send", topic=name, messages=[*made("abc"), *made("b", "bad")])
    heard = await official.run("listen_lite", group=name, topic=name, lite_topics=["a", "b"], count=4 * EACH)
    good = [f"good {lite_topic} {number}" for lite_topic in "ab" for number in range(EACH)]
    assert bodies(heard) == sorted([*good, *[f"bad b {number}" for number in range(EACH)] * 2])
    assert await operator.lag(name, name) == 0, "of what it has read all is settled"


async def test_a_simple_consumer_gets_them_within_its_quota(
    cluster: Cluster, official: Official, operator: Operator, name: str
) -> None:
    # This consumer asks one broker only: that of the first queue of the route.
    cluster.kourou("topic", "create", name, "--type", "lite", "--broker", "broker-a")
    cluster.kourou("group", "create", name, "--lite", name, "--lite-quota", "2")
    await official.run("send", topic=name, messages=made("abc"))
    got = await official.run("receive_lite", group=name, topic=name, lite_topics=["a", "b", "c"], count=2 * EACH)
    assert bodies(got["received"]) == sorted(
        f"good {lite_topic} {number}" for lite_topic in "ab" for number in range(4)
    )
    assert {one["lite_topic"] for one in got["received"]} == {"a", "b"}
    assert "quota" in got["refusal"]
    assert await operator.lag(name, name) == 0
