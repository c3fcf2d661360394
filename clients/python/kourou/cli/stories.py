"""The lives of messages: a timeline for each group, for people or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kourou.cli.options import shown
from kourou.cli.output import local_time, stdout
from kourou.cli.times import milliseconds
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Message, MessageType
from kourou.protocol.kourou.admin.v1.admin_pb2 import BrokerStories, ExplainMessageResponse
from kourou.protocol.kourou.broker.v1 import broker_pb2
from kourou.protocol.kourou.broker.v1.broker_pb2 import GroupStory, MessageStory, StoryEvent

# What an event says, where {client}, {attempt} and {until} are those of its lease.
_SENTENCES = {
    broker_pb2.STORY_KIND_STORED: "stored in its queue",
    broker_pb2.STORY_KIND_DELAYED: "stored, and held until {until}",
    broker_pb2.STORY_KIND_DUE: "its time has come",
    broker_pb2.STORY_KIND_RECALLED: "recalled",
    broker_pb2.STORY_KIND_HALF: "stored as half of a transaction",
    broker_pb2.STORY_KIND_CHECKED: "{client} was asked what became of the transaction (check {attempt})",
    broker_pb2.STORY_KIND_COMMITTED: "committed",
    broker_pb2.STORY_KIND_ROLLED_BACK: "rolled back",
    broker_pb2.STORY_KIND_LEASED: "leased to {client} until {until}, attempt {attempt}",
    broker_pb2.STORY_KIND_LEASE_CHANGED: "lease of {client} changed, due again at {until}",
    broker_pb2.STORY_KIND_ACKNOWLEDGED: "acknowledged by {client}",
    broker_pb2.STORY_KIND_FILTERED: "filtered when {client} asked",
    broker_pb2.STORY_KIND_DEAD_LETTERED: "dead-lettered",
    broker_pb2.STORY_KIND_RESENT: "resent from the dead-letter topic",
    broker_pb2.STORY_KIND_OFFSET_SET: "offset set",
    broker_pb2.STORY_KIND_EXPIRED: "expired",
    broker_pb2.STORY_KIND_HELD_BACK: "held back",
}
_STYLES = {
    broker_pb2.FATE_WAITING: "bold yellow",
    broker_pb2.FATE_CONSUMED: "bold green",
    broker_pb2.FATE_DEAD_LETTERED: "bold red",
    broker_pb2.FATE_EXPIRED: "bold red",
}
_NO_LONGER_KNOWN = "settled, but how is no longer known"


def show_stories(response: ExplainMessageResponse) -> None:
    console = stdout()
    first = True
    for broker in response.brokers:
        for story in broker.explanation.stories:
            if not first:
                console.print()
            first = False
            _show(console, broker.broker, story)


def stories_as_json(response: ExplainMessageResponse) -> dict[str, Any]:
    return {
        "stories": [
            _story(broker.broker, story) for broker in response.brokers for story in broker.explanation.stories
        ],
        "known_since_ms": {broker.broker: _known_since_ms(broker) for broker in response.brokers},
    }


def unknown(message_id: str, response: ExplainMessageResponse) -> str:
    """What is said when there is no story: how far back each broker remembers."""
    memories = [
        f"{broker.broker} remembers what happened since {local_time(_known_since_ms(broker) or 0)}"
        if _known_since_ms(broker) is not None
        else f"{broker.broker} has stored nothing yet"
        for broker in response.brokers
    ]
    return f"no broker knows a message {message_id}, or knows it no longer: {', '.join(memories)}"


def _show(console: Console, broker: str, story: MessageStory) -> None:
    began_ms = milliseconds(story.events[0].time)
    console.print(Text("message ").append(story.message.system_properties.message_id, "bold"))
    console.print(Text("  " + ", ".join(_where(broker, story)), "dim"))
    _show_events(console, story.events, began_ms)
    _show_waiting(console, story.waits_for)
    for group in story.groups:
        console.print()
        heading = Text("  group ").append(shown(group.group), "bold").append(": ")
        console.print(heading.append(_fate(group) or _NO_LONGER_KNOWN, _STYLES.get(group.fate, "bold")))
        _show_events(console, group.events, began_ms)
        _show_waiting(console, group.waits_for)
    if not story.groups and not story.waits_for and _in_queue(story.message):
        console.print("\n  no group reads its topic")


def _where(broker: str, story: MessageStory) -> Iterator[str]:
    system = story.message.system_properties
    yield f"topic {shown(story.message.topic)}"
    yield broker
    if _in_queue(story.message):
        queue = f"lite topic {system.lite_topic}" if system.lite_topic else f"queue {system.queue_id}"
        yield f"{queue}, offset {system.queue_offset}"
    yield story.offset_message_id
    if system.tag:
        yield f"tag {system.tag}"
    if system.keys:
        yield f"keys {' '.join(system.keys)}"
    if system.message_group:
        yield f"message group {system.message_group}"


def _show_events(console: Console, events: Iterable[StoryEvent], began_ms: int) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for event in events:
        time_ms = milliseconds(event.time)
        later = f"+{_span(time_ms - began_ms)}" if time_ms > began_ms else ""
        table.add_row(Text("  " + _exact_time(time_ms)), Text(later, "dim"), _sentence(event, time_ms))
    if table.row_count:
        console.print(table)


def _sentence(event: StoryEvent, time_ms: int) -> Text:
    words = _SENTENCES.get(event.kind, broker_pb2.StoryKind.Name(event.kind).lower())
    until_ms = milliseconds(event.until)
    text = Text(
        words.format(
            client=event.client_id or "a client",
            attempt=event.attempt,
            until=_exact_time(until_ms, beside_ms=time_ms),
        )
    )
    if event.note:
        text.append(f" ({event.note})")
    return text.append(f"  @{event.log_position:x}", "dim")


def _show_waiting(console: Console, waits_for: str) -> None:
    if waits_for:
        console.print(Text("  still waiting: ", "yellow").append(waits_for))


def _story(broker: str, story: MessageStory) -> dict[str, Any]:
    message, system = story.message, story.message.system_properties
    in_queue = _in_queue(message)
    return {
        "broker": broker,
        "topic": shown(message.topic),
        "type": MessageType.Name(system.message_type).lower(),
        "queue": system.queue_id if in_queue else None,
        "offset": system.queue_offset if in_queue else None,
        "message_id": system.message_id,
        "offset_message_id": story.offset_message_id,
        "tag": system.tag if system.HasField("tag") else None,
        "keys": list(system.keys),
        "message_group": system.message_group if system.HasField("message_group") else None,
        "lite_topic": system.lite_topic if system.HasField("lite_topic") else None,
        "properties": dict(message.user_properties),
        "born_ms": milliseconds(system.born_timestamp),
        "born_host": system.born_host,
        "stored_ms": milliseconds(system.store_timestamp),
        "events": _events(story.events),
        "waits_for": story.waits_for or None,
        "groups": [
            {
                "group": shown(group.group),
                "fate": _fate(group),
                "waits_for": group.waits_for or None,
                "events": _events(group.events),
            }
            for group in story.groups
        ],
    }


def _events(events: Sequence[StoryEvent]) -> list[dict[str, Any]]:
    return [
        {
            "time_ms": milliseconds(event.time),
            "kind": broker_pb2.StoryKind.Name(event.kind).removeprefix("STORY_KIND_").lower().replace("_", "-"),
            "client_id": event.client_id or None,
            "attempt": event.attempt or None,
            "until_ms": milliseconds(event.until) if event.HasField("until") else None,
            "note": event.note or None,
            "log_position": event.log_position,
        }
        for event in events
    ]


def _fate(group: GroupStory) -> str | None:
    """None when it is no longer known."""
    if group.fate == broker_pb2.FATE_UNSPECIFIED:
        return None
    return broker_pb2.Fate.Name(group.fate).removeprefix("FATE_").lower().replace("_", "-")


def _in_queue(message: Message) -> bool:
    return message.system_properties.HasField("queue_offset")


def _known_since_ms(broker: BrokerStories) -> int | None:
    explanation = broker.explanation
    return milliseconds(explanation.known_since) if explanation.HasField("known_since") else None


def _exact_time(time_ms: int, beside_ms: int | None = None) -> str:
    """Local time to the millisecond; without the date beside another time of that day."""
    date, time = _local(time_ms)
    exact = f"{time}.{time_ms % 1000:03}"
    return exact if beside_ms is not None and _local(beside_ms)[0] == date else f"{date} {exact}"


def _local(time_ms: int) -> tuple[str, str]:
    """Date, and time to the second."""
    local = datetime.fromtimestamp(time_ms / 1000, UTC).astimezone()
    return local.strftime("%Y-%m-%d"), local.strftime("%H:%M:%S")


def _span(ms: int) -> str:
    if ms < 1000:
        return f"{ms} ms"
    for size_ms, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min")):
        if ms >= size_ms:
            return f"{ms / size_ms:.1f} {unit}"
    return f"{ms / 1000:.3f} s"
