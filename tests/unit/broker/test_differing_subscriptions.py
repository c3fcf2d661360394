"""Members of a group that do not all want the same: known, told in the log once for each change, and counted."""

import asyncio

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_rpc
from kourou_broker.metrics.consumers import ConsumerMetrics
from kourou_broker.operations.differing_subscriptions import DifferingSubscriptions
from kourou_broker.state.definitions import Name
from kourou_service.subscriptions import wanted_by
from tests.simulation.direct import DirectCall
from tests.unit.broker.alone import Broker, expression, resource, settings_command, simulated


def subscribe(broker: Broker, client: str, **topics: str) -> DirectCall:
    """A push consumer of `team`; topics with their tags, or with a condition that has a =."""
    command = settings_command(definition_pb2.PUSH_CONSUMER, "team", [])
    for topic, text in topics.items():
        wanted = expression(None, text) if "=" in text else expression(text)
        command.settings.subscription.subscriptions.add(topic=resource(topic), expression=wanted)
    stream = broker.doors.open(service_rpc.TELEMETRY, {"x-mq-client-id": client})
    stream.requests.put_nowait(command.SerializeToString())
    return stream


async def differing(broker: Broker) -> dict[str, float]:
    """The metric, by group."""
    core = broker.core
    families = await ConsumerMetrics(core.backlogs, core.clients.differing, broker.shard.clock).collect()
    [family] = [family for family in families if family.name == "kourou_group_differing_subscriptions"]
    return {labels[0]: value for labels, value in family.rows if isinstance(value, (int, float))}


@pytest.mark.parametrize(
    ("one", "other", "topics"),
    [
        ({"orders": "a"}, {"orders": "a"}, 0),
        ({"orders": "a || b"}, {"orders": "b||a"}, 0),
        ({"orders": "*"}, {"orders": ""}, 0),
        ({"orders": "a"}, {"orders": "b"}, 1),
        ({"orders": "a"}, {"orders": "*"}, 1),
        ({"orders": "a = 1"}, {"orders": " a = 1 "}, 0),
        ({"orders": "a = 1"}, {"orders": "a = 2"}, 1),
        ({"orders": "a", "others": "*"}, {"orders": "a"}, 1),
        ({"orders": "a", "others": "*"}, {"orders": "b"}, 2),
        ({"orders": "a"}, {"others": "a"}, 2),
    ],
)
def test_what_differs(one: dict[str, str], other: dict[str, str], topics: int) -> None:
    @simulated
    async def run() -> None:
        broker = await Broker.started()
        subscribe(broker, "one", **one)
        await asyncio.sleep(0.01)
        assert await differing(broker) == {"team": 0}
        subscribe(broker, "other", **other)
        await asyncio.sleep(0.01)
        assert await differing(broker) == {"team": topics}
        await broker.leave("other")
        assert await differing(broker) == {"team": 0}
        await broker.leave("one")
        assert await differing(broker) == {}

    run()


@simulated
async def test_a_member_that_changes_its_mind_or_dies() -> None:
    broker = await Broker.started()
    subscribe(broker, "one", orders="a")
    other = subscribe(broker, "other", orders="b")
    await asyncio.sleep(0.01)
    assert await differing(broker) == {"team": 1}
    again = settings_command(definition_pb2.PUSH_CONSUMER, "team", [])
    again.settings.subscription.subscriptions.add(topic=resource("orders"), expression=expression("a"))
    other.requests.put_nowait(again.SerializeToString())
    await asyncio.sleep(0.01)
    assert await differing(broker) == {"team": 0}
    again.settings.subscription.subscriptions[0].expression.expression = "c"
    other.requests.put_nowait(again.SerializeToString())
    await asyncio.sleep(0.01)
    assert await differing(broker) == {"team": 1}
    other.cancel()
    await asyncio.sleep(10)
    assert await differing(broker) == {"team": 0}


@simulated
async def test_who_only_receives_says_nothing_for_sure() -> None:
    broker = await Broker.started()
    subscribe(broker, "one", orders="a")
    await asyncio.sleep(0.01)
    await broker.receive(client="raw", tags="b")
    assert await differing(broker) == {"team": 0}


def test_the_log_is_told_once_for_each_change() -> None:
    group, orders, others = Name("", "team"), Name("", "orders"), Name("", "others")
    a, b = (definition_pb2.FilterExpression(expression=tag) for tag in "ab")
    known = DifferingSubscriptions()
    with structlog.testing.capture_logs() as logs:
        known.subscribed("1", group, {orders: a})
        assert logs == []
        known.subscribed("2", group, {orders: b})
        for client in ("1", "2", "2"):
            known.subscribed(client, group, {orders: a if client == "1" else b})
        known.subscribed("3", group, {orders: b})
        assert [(entry["log_level"], entry["topics"]) for entry in logs] == [("warning", ["orders"])]
        known.subscribed("3", group, {orders: b, others: a})
        assert logs[-1]["topics"] == ["orders", "others"]
        known.left("3")
        known.left("2")
        known.left("nobody")
    assert [entry["log_level"] for entry in logs] == ["warning", "warning", "warning", "info"]


_TOPICS = st.dictionaries(st.sampled_from("xyz"), st.sampled_from(["a", "b", "a || b", "b || a", "*"]), max_size=3)


@given(st.lists(st.tuples(st.sampled_from("1234"), st.sampled_from("gh"), _TOPICS | st.none()), max_size=30))
def test_counting_says_what_looking_at_all_members_says(steps: list[tuple[str, str, dict[str, str] | None]]) -> None:
    known = DifferingSubscriptions()
    members: dict[str, tuple[str, dict[str, str]]] = {}
    for client, group, topics in steps:
        if topics is None:
            known.left(client)
            members.pop(client, None)
            continue
        filters = {Name("", topic): definition_pb2.FilterExpression(expression=text) for topic, text in topics.items()}
        known.subscribed(client, Name("", group), filters)
        members[client] = group, topics
        said = {name.name: [topic.name for topic in differ] for name, differ in known}
        assert said == {each: _looked_at(members, each) for each in {group for group, _topics in members.values()}}


def _looked_at(members: dict[str, tuple[str, dict[str, str]]], group: str) -> list[str]:
    wants = [topics for its_group, topics in members.values() if its_group == group]
    return [topic for topic in "xyz" if len({_wanted(topics.get(topic)) for topics in wants}) > 1]


def _wanted(text: str | None) -> object:
    return None if text is None else wanted_by(definition_pb2.FilterExpression(expression=text))
