"""What became of a message, asked of real processes: one life in four groups, and again after kill -9."""

import json
from collections.abc import Sequence
from typing import Any

from kourou import AsyncProducer, AsyncSimpleConsumer, Message, ReceivedMessage
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually


async def _take(cluster: Cluster, group: str, topic: str, tags: str, **options: Any) -> list[ReceivedMessage]:
    """What one poll of one member brings; the member leaves."""
    async with AsyncSimpleConsumer(group, {topic: tags}, cluster.namesrv, client_id=f"{group}-member") as consumer:
        return await consumer.receive(wait_s=2, **options)


async def _consume_at_the_second_attempt(cluster: Cluster, group: str, topic: str) -> None:
    async with AsyncSimpleConsumer(group, {topic: "*"}, cluster.namesrv, client_id=f"{group}-member") as consumer:
        [first] = await consumer.receive(wait_s=10, invisible_duration_s=60)
        await consumer.change_invisible_duration(first, 0.1)
        [second] = await consumer.receive(wait_s=10, invisible_duration_s=60)
        assert second.attempt == 2
        await consumer.ack(second)


def _explain(cluster: Cluster, *words: str) -> dict[str, Any]:
    [story] = json.loads(cluster.kourou("message", "explain", *words, "--json").stdout)["stories"]
    return story


def _kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["kind"] for event in events]


async def test_one_message_in_four_groups(new_cluster: Any) -> None:
    cluster: Cluster = new_cluster(namesrvs=1, brokers=1)
    async with Operator(cluster) as operator:
        topic = await operator.create_topic("flights", queues=1)
        consuming = await operator.create_group("consuming")
        choosy = await operator.create_group("choosy")
        failing = await operator.create_group("failing", max_attempts=1)
        away = await operator.create_group("away")
    async with AsyncProducer(cluster.namesrv) as producer:
        await producer.send(Message(topic, b"before"))
        assert await _take(cluster, away, topic, "*", max_messages=1)  # it lends it the first, and reads no further
        sent = await producer.send(Message(topic, b"x", tag="blue", keys=["k"]))
    async with AsyncSimpleConsumer(consuming, {topic: "*"}, cluster.namesrv, client_id="early") as early:
        [first] = await early.receive(max_messages=1, wait_s=10)
        assert first.body == b"before"
        await early.ack(first)
    await _consume_at_the_second_attempt(cluster, consuming, topic)
    assert await _take(cluster, choosy, topic, "red") == []
    assert await _take(cluster, failing, topic, "blue", invisible_duration_s=1)

    async def buried() -> bool:
        """An attempt that failed was the last one: the next poll makes it a dead letter."""
        assert await _take(cluster, failing, topic, "blue") == []
        return _fates(_explain(cluster, topic, sent.message_id))["failing"] == "dead-lettered"

    await eventually(buried)
    story = _explain(cluster, topic, sent.message_id)
    assert (story["broker"], story["queue"], story["offset"], story["keys"]) == ("broker-a", 0, 1, ["k"])
    assert _kinds(story["events"]) == ["stored"]
    assert _fates(story) == {
        "away": "waiting",
        "choosy": "filtered",
        "consuming": "consumed",
        "failing": "dead-lettered",
    }
    groups = {group["group"]: group for group in story["groups"]}
    assert _kinds(groups["consuming"]["events"]) == ["leased", "lease-changed", "leased", "acknowledged"]
    assert [event["attempt"] for event in groups["consuming"]["events"]] == [1, 1, 2, 2]
    assert {event["client_id"] for event in groups["consuming"]["events"]} == {"consuming-member"}
    assert _kinds(groups["choosy"]["events"]) == ["filtered"]
    assert _kinds(groups["failing"]["events"]) == ["leased", "dead-lettered"]
    assert groups["away"]["waits_for"].startswith("it is the next of its queue")

    by_place = _explain(cluster, story["offset_message_id"])
    assert by_place["groups"][1:] == story["groups"][1:]
    letter = _explain(cluster, groups["failing"]["events"][-1]["note"].rpartition(" ")[2])
    assert letter["topic"] == "%DLQ%failing"
    shown = cluster.kourou("message", "explain", topic, sent.message_id).stdout
    assert "group consuming: consumed" in shown
    assert "still waiting: it is the next of its queue" in shown

    broker = cluster.broker("broker-a")
    broker.kill()
    broker.start()
    cluster.wait_until_registered(broker)
    again = _explain(cluster, topic, sent.message_id)
    assert again["groups"][1:] == story["groups"][1:]
    missing = cluster.kourou("message", "explain", topic, "nobody-sent-it", code=1).stderr
    assert "broker-a remembers what happened since" in missing


def _fates(story: dict[str, Any]) -> dict[str, str]:
    return {group["group"]: group["fate"] for group in story["groups"]}
