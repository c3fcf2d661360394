"""What became of a message, put together from what the log says of it: nothing here reads or waits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations.places import Located
from kourou_broker.state import Kind
from kourou_broker.state.definitions import Name
from kourou_broker.state.history import Ending, Event, What

_UNUSED = "no message came to its lite topic for too long"
_COPY = "what is left is a copy, made when its segment was dropped"


@dataclass(slots=True)
class Told:
    """An event, and what else is worth telling of it."""

    event: Event
    note: str = ""


@dataclass(slots=True)
class GroupStory:
    group: Name
    ending: Ending | None
    """None: it was settled, but how is no longer known."""
    events: list[Told] = field(default_factory=list[Told])
    waits_for: str = ""


@dataclass(slots=True)
class Story:
    """Of a message in a queue, of one that is held or was, or of both where one became the other."""

    message: Located
    events: list[Told] = field(default_factory=list[Told])
    groups: list[GroupStory] = field(default_factory=list[GroupStory])
    waits_for: str = ""
    places: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    """Where it lies, or has lain: position and index of all that was found of it."""


def lives(found: Iterable[Located]) -> list[list[Located]]:
    """What was found, parted by message: the original comes before its copies, if it is there."""
    parted: dict[object, list[Located]] = {}
    for located in sorted(found, key=lambda located: (_is_copy(located), located.message.position)):
        of = located.origin or (located.queue, located.message.offset)
        parted.setdefault(of, []).append(located)
    return list(parted.values())


def stored(located: Located) -> Told:
    """The beginning of a message's life in its queue."""
    message = located.message
    return Told(Event(What.STORED, message.stored_ms, message.position), _COPY if _is_copy(located) else "")


def held(located: Located) -> Told:
    """The beginning of a message's life before it is in a queue."""
    message = located.message
    if located.type == definition_pb2.TRANSACTION:
        event = Event(What.HALF, message.stored_ms, message.position)
    else:
        event = Event(What.DELAYED, message.stored_ms, message.position, until_ms=located.when_ms)
    return Told(event, _COPY if _is_copy(located) else "")


def became(held_story: Story, queued: Sequence[Story]) -> Story | None:
    """Which of the messages in queues the held one became: they came in the frame of the record that ended it."""
    end = held_story.events[-1].event
    if end.what not in (What.DUE, What.COMMITTED):
        return None
    same_frame = [story for story in queued if story.message.message.stored_ms == end.stored_ms]
    return min(same_frame, key=lambda story: abs(story.message.message.position - end.position), default=None)


def join(held_story: Story, queued: Story) -> Story:
    """One life."""
    return Story(
        queued.message,
        [*held_story.events, *queued.events],
        queued.groups,
        queued.waits_for,
        held_story.places | queued.places,
    )


def tell(events: Iterable[Event]) -> list[Told]:
    """Events with notes; where a dead letter went is not known here."""
    told: list[Told] = []
    lease: Event | None = None
    for event in events:
        told.append(Told(event, _note(event, lease)))
        lease = event if event.what in _LEASES else None
    return told


_LEASES = frozenset((What.LEASED, What.LEASE_CHANGED, What.HELD_BACK, What.RESENT))


def _note(event: Event, lease: Event | None) -> str:
    match event.what:
        case What.LEASED:
            return "; ".join(filter(None, (_why_again(event, lease), "renewed while it lives" * event.auto_renew)))
        case What.LEASE_CHANGED:
            return "this attempt does not count" if lease is not None and event.attempt < lease.attempt else ""
        case What.HELD_BACK:
            return "behind an older message of its message group"
        case What.FILTERED:
            return "its subscription leaves this message out"
        case What.DEAD_LETTERED:
            return f"after attempt {event.attempt}" if event.attempt else ""
        case What.OFFSET_SET:
            return f"the group's offset was set to {event.offset}"
        case What.EXPIRED:
            return _UNUSED if event.with_lite_topic else "retention dropped it first"
        case What.ROLLED_BACK:
            return "no producer said in time what became of the transaction" * event.given_up
        case _:
            return ""


def _why_again(event: Event, lease: Event | None) -> str:
    if lease is None or lease.what == What.RESENT:
        return ""
    if lease.what == What.HELD_BACK:
        return "its turn had come"
    if event.stored_ms >= lease.until_ms:
        return "the lease had run out" if lease.what == What.LEASED else "due again"
    return f"{lease.client_id} was gone, or never got it"


def _is_copy(located: Located) -> bool:
    return located.kind in (Kind.CARRY, Kind.HELD_CARRIED)
