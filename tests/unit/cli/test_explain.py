"""`kourou message explain`: a timeline for each group, the same as JSON, and what is said of the unknown."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp
from kourou.protocol.kourou.broker.v1 import broker_pb2 as pb
from kourou.protocol.kourou.broker.v1 import broker_rpc
from kourou_service.door import OK
from tests.unit.cli.conftest import Command

BEGAN_MS = 1_763_937_000_123


def at(ms: int) -> Timestamp:
    return Timestamp(seconds=(BEGAN_MS + ms) // 1000, nanos=(BEGAN_MS + ms) % 1000 * 1_000_000)


def event(ms: int, kind: str, until: int | None = None, **fields: Any) -> pb.StoryEvent:
    return pb.StoryEvent(
        time=at(ms),
        kind=f"STORY_KIND_{kind}",
        log_position=0x1000 + ms,
        until=at(until) if until is not None else None,
        **fields,
    )


def group(name: str, fate: str, *events: pb.StoryEvent, waits_for: str = "") -> pb.GroupStory:
    return pb.GroupStory(group=v2.Resource(name=name), fate=fate, events=events, waits_for=waits_for)


def story(*groups: pb.GroupStory, **fields: Any) -> pb.MessageStory:
    system = v2.SystemProperties(
        message_id="01AB", tag="late", keys=["k1", "k2"], queue_id=3, queue_offset=17, store_timestamp=at(0)
    )
    message = v2.Message(topic=v2.Resource(name="flights"), system_properties=system, user_properties={"a": "b"})
    fields = {"events": [event(0, "STORED")], **fields}
    return pb.MessageStory(message=message, groups=groups, offset_message_id="broker-a@1000.3", **fields)


def answer(kourou: Command, broker: str, *stories: pb.MessageStory, known_since: bool = True) -> None:
    explanation = pb.ExplainMessageResponse(
        status=OK, stories=stories, known_since=Timestamp(seconds=86_400) if known_since else None
    )
    kourou.brokers[broker].answers[broker_rpc.EXPLAIN_MESSAGE.path] = lambda _: explanation


@pytest.fixture
def told(kourou: Command) -> Command:
    """One message with four groups on broker-a, unknown on broker-b."""
    consumed = group(
        "readers",
        "FATE_CONSUMED",
        event(7, "LEASED", until=60_007, client_id="c1", attempt=1),
        event(900, "LEASE_CHANGED", until=10_900, client_id="c1", attempt=1),
        event(12_000, "LEASED", until=86_472_000, client_id="c2", attempt=2, note="due again"),
        event(7_212_000, "ACKNOWLEDGED", client_id="c2", attempt=2),
    )
    dead = group("failing", "FATE_DEAD_LETTERED", event(5, "DEAD_LETTERED", note="to %DLQ%failing, offset 0"))
    filtered = group("choosy", "FATE_FILTERED", event(5, "FILTERED", client_id="c9"))
    waiting = group("slow", "FATE_WAITING", waits_for="behind 3 other messages of its queue")
    forgotten = group("old", "FATE_UNSPECIFIED")
    answer(kourou, "broker-a", story(consumed, dead, filtered, waiting, forgotten))
    answer(kourou, "broker-b")
    return kourou


def lines(text: str) -> list[str]:
    """Without the times, which are local ones."""
    return [re.sub(r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d\.\d{3}", "TIME", line).rstrip() for line in text.splitlines()]


def test_a_timeline_for_each_group(told: Command) -> None:
    shown = lines(told.ok("message", "explain", "flights", "01AB"))
    assert shown == [
        "message 01AB",
        "  topic flights, broker-a, queue 3, offset 17, broker-a@1000.3, tag late, keys k1 k2",
        "  TIME    stored in its queue  @1000",
        "",
        "  group readers: consumed",
        "  TIME      +7 ms  leased to c1 until TIME, attempt 1  @1007",
        "  TIME    +900 ms  lease of c1 changed, due again at TIME  @1384",
        "  TIME  +12.000 s  leased to c2 until TIME, attempt 2 (due again)  @3ee0",
        "  TIME     +2.0 h  acknowledged by c2  @6e1be0",
        "",
        "  group failing: dead-lettered",
        "  TIME  +5 ms  dead-lettered (to %DLQ%failing, offset 0)  @1005",
        "",
        "  group choosy: filtered",
        "  TIME  +5 ms  filtered when c9 asked  @1005",
        "",
        "  group slow: waiting",
        "  still waiting: behind 3 other messages of its queue",
        "",
        "  group old: settled, but how is no longer known",
    ]


def test_the_date_stands_only_where_it_is_another_one(told: Command) -> None:
    shown = told.ok("message", "explain", "flights", "01AB").splitlines()
    first, _, third = (line for line in shown if "lease" in line)
    assert re.search(r"until \d\d:", first)
    assert re.search(r"until \d{4}-\d\d-\d\d \d\d:", third)


def test_as_json(told: Command) -> None:
    shown = json.loads(told.ok("message", "explain", "flights", "01AB", "--json"))
    assert shown["known_since_ms"] == {"broker-a": 86_400_000, "broker-b": 86_400_000}
    (only,) = shown["stories"]
    assert {name: only[name] for name in ("broker", "topic", "queue", "offset", "message_id", "tag", "keys")} == {
        "broker": "broker-a",
        "topic": "flights",
        "queue": 3,
        "offset": 17,
        "message_id": "01AB",
        "tag": "late",
        "keys": ["k1", "k2"],
    }
    assert (only["waits_for"], only["stored_ms"], only["properties"]) == (None, BEGAN_MS, {"a": "b"})
    assert [(told_["group"], told_["fate"]) for told_ in only["groups"]] == [
        ("readers", "consumed"),
        ("failing", "dead-lettered"),
        ("choosy", "filtered"),
        ("slow", "waiting"),
        ("old", None),
    ]
    assert only["groups"][0]["events"][0] == {
        "time_ms": BEGAN_MS + 7,
        "kind": "leased",
        "client_id": "c1",
        "attempt": 1,
        "until_ms": BEGAN_MS + 60_007,
        "note": None,
        "log_position": 0x1007,
    }
    assert only["groups"][3]["waits_for"] == "behind 3 other messages of its queue"


def test_a_message_that_is_in_no_queue_yet(kourou: Command) -> None:
    held = story(events=[event(0, "DELAYED", until=60_000), event(60_000, "DUE")], waits_for="its time comes in 2 h")
    held.message.system_properties.ClearField("queue_offset")
    answer(kourou, "broker-a", held)
    answer(kourou, "broker-b")
    shown = lines(kourou.ok("message", "explain", "flights", "01AB"))
    assert shown[1:] == [
        "  topic flights, broker-a, broker-a@1000.3, tag late, keys k1 k2",
        "  TIME            stored, and held until TIME  @1000",
        "  TIME  +1.0 min  its time has come  @fa60",
        "  still waiting: its time comes in 2 h",
    ]
    (only,) = json.loads(kourou.ok("message", "explain", "flights", "01AB", "--json"))["stories"]
    assert (only["queue"], only["offset"], only["waits_for"]) == (None, None, "its time comes in 2 h")


def test_every_kind_of_event_has_its_words(kourou: Command) -> None:
    kinds = [name for name in pb.StoryKind.keys() if name != "STORY_KIND_UNSPECIFIED"]  # noqa: SIM118
    answer(kourou, "broker-a", story(events=[pb.StoryEvent(time=at(0), kind=kind) for kind in kinds]))
    answer(kourou, "broker-b")
    shown = kourou.ok("message", "explain", "flights", "01AB")
    assert "story_kind" not in shown
    assert "no group reads its topic" in shown


def test_a_lite_topic_is_named(kourou: Command) -> None:
    lite = story()
    lite.message.system_properties.lite_topic = "session-1"
    answer(kourou, "broker-a", lite)
    answer(kourou, "broker-b")
    assert "  topic flights, broker-a, lite topic session-1, offset 17, " in kourou.ok(
        "message", "explain", "flights", "01AB"
    )
    (only,) = json.loads(kourou.ok("message", "explain", "flights", "01AB", "--json"))["stories"]
    assert only["lite_topic"] == "session-1"


def test_an_offset_message_id_needs_no_topic_and_one_broker(told: Command) -> None:
    assert "message 01AB" in told.ok("message", "explain", "broker-a@1000.3")
    path, request = cast("tuple[str, Any]", told.brokers["broker-a"].asked[-1])
    assert (path, request.message_id, request.HasField("topic")) == (
        broker_rpc.EXPLAIN_MESSAGE.path,
        "broker-a@1000.3",
        False,
    )
    assert told.brokers["broker-b"].asked == []


def test_the_unknown_and_how_far_back_the_brokers_remember(kourou: Command) -> None:
    answer(kourou, "broker-a")
    answer(kourou, "broker-b", known_since=False)
    result = kourou("message", "explain", "flights", "02")
    assert result.exit_code == 1
    assert "no broker knows a message 02, or knows it no longer: broker-a remembers what happened since 19" in (
        result.stderr
    )
    assert "broker-b has stored nothing yet" in result.stderr
    result = kourou("message", "explain", "flights", "02", "--json")
    assert (result.exit_code, json.loads(result.stdout)["stories"]) == (1, [])


def test_a_broker_that_does_not_answer_is_named(told: Command) -> None:
    told.brokers["broker-b"].down = True
    result = told("message", "explain", "flights", "01AB")
    assert (result.exit_code, "broker-b is missing here" in result.stderr) == (0, True)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["01AB"], "the topic is missing"),
        (["a", "b", "c"], "give a topic and a message id"),
        (["flights", ""], "the message id is empty"),
        (["fl ights", "01AB"], "has a character other than"),
        (["broker-x@1000.3"], "there is no broker 'broker-x'"),
        (["broker-a@nowhere"], "is no offset message id"),
    ],
)
def test_bad_words(told: Command, words: list[str], reason: str) -> None:
    result = told("message", "explain", *words)
    assert result.exit_code != 0
    assert reason in re.sub(r"[\s│]+", " ", result.stderr)
