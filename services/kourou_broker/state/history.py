"""What the records of the log say of one message: the fold, looked at from a single offset of a queue.

`Historian` notes which records concern which offsets, for the history index; `MessageHistory` reads those of one
message in the order of the log and tells, for each group, what happened to it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, auto

from kourou_broker.log.history_index import NO_GROUP, GrowingHistory, Row
from kourou_broker.log.section import Section
from kourou_broker.state import records
from kourou_broker.state.records import Fate, Kind, Resolution
from kourou_broker.state.timers import Place

HELD_QUEUE = 0xFFFFFFFF
"""Under this number the index has what is held: a message's offset is the log position of its origin."""
_NEIGHBOURS = 64
"""Offsets of a record with no greater gap between them are one span of the index."""


class What(IntEnum):
    """What happened to a message."""

    STORED = auto()
    DELAYED = auto()
    DUE = auto()
    RECALLED = auto()
    HALF = auto()
    CHECKED = auto()
    COMMITTED = auto()
    ROLLED_BACK = auto()
    LEASED = auto()
    LEASE_CHANGED = auto()
    HELD_BACK = auto()
    ACKNOWLEDGED = auto()
    FILTERED = auto()
    DEAD_LETTERED = auto()
    RESENT = auto()
    OFFSET_SET = auto()
    EXPIRED = auto()


class Ending(IntEnum):
    """How a message ended for a group; WAITING: it did not."""

    WAITING = auto()
    CONSUMED = auto()
    FILTERED = auto()
    DEAD_LETTERED = auto()
    EXPIRED = auto()
    SKIPPED = auto()


@dataclass(frozen=True, slots=True)
class Event:
    """What a record says of the message; client_id, attempt and until_ms are those of its lease, if it has one."""

    what: What
    stored_ms: int
    position: int
    client_id: str = ""
    attempt: int = 0
    until_ms: int = 0
    auto_renew: bool = False
    offset: int = 0
    """Of OFFSET_SET: where to."""
    given_up: bool = False
    """Of ROLLED_BACK: the broker did it, since no producer answered."""
    with_lite_topic: bool = False
    """Of EXPIRED: not by retention."""


@dataclass(slots=True)
class GroupHistory:
    """The message in one group. It is fresh until a lease moves past it, then pending or settled."""

    group: int
    is_known: bool
    """Else it may have been settled before the first event."""
    ending: Ending = Ending.WAITING
    events: list[Event] = field(default_factory=list[Event])
    lease: Event | None = None
    """By which it is pending."""

    @property
    def fresh(self) -> bool:
        return self.ending == Ending.WAITING and self.lease is None

    def add(self, event: Event, ending: Ending, lease: Event | None = None) -> None:
        self.events.append(event)
        self.ending = ending
        self.lease = lease


class Historian:
    """Reads the records of one segment, in the order of the log, into its history index."""

    def __init__(self, base: int) -> None:
        self.index = GrowingHistory(base)
        self._highs: dict[tuple[int, int, int], int] = {}
        """By group, topic and queue: how far it has come, once a record of the segment has said it."""

    def add(self, section: Section, stored_ms: int) -> None:
        match section.kind:
            case Kind.LEASE:
                self._lease(section, stored_ms)
            case Kind.ACK:
                group, offsets = records.read_ack(section)
                self._spans(section, stored_ms, group, offsets)
            case Kind.OFFSET:
                group, to = records.read_offset(section)
                self._highs[group, section.topic, section.queue] = to
                self.index.sweep(section.topic, section.queue, _row(section, stored_ms, group, to))
            case Kind.RESENT:
                group, (topic, queue, offset) = records.read_resent(section)
                self.index.span(topic, queue, offset, offset, _row(section, stored_ms, group))
                letter = section.base
                self.index.span(section.topic, section.queue, letter, letter, _row(section, stored_ms, NO_GROUP))
            case Kind.TRIM:
                for topic, queue, first in records.read_trim(section)[1]:
                    self.index.sweep(topic, queue, _row(section, stored_ms, NO_GROUP, first))
            case Kind.LITE_TOPIC if section.type:
                self.index.sweep(section.topic, section.queue, _row(section, stored_ms, NO_GROUP))
            case Kind.FIRED | Kind.RECALLED | Kind.TRANSACTION_END | Kind.TRANSACTION_CHECKED:
                row = _row(section, stored_ms, NO_GROUP)
                for position in {position for position, _index in _origins(section)}:
                    self.index.span(section.topic, HELD_QUEUE, position, position, row)
            case _:
                pass

    def _lease(self, section: Section, stored_ms: int) -> None:
        group, high, lease = records.read_lease(section)
        key = (group, section.topic, section.queue)
        before = self._highs.get(key)
        self._highs[key] = max(high, before or 0)
        offsets: Iterable[int] = lease.offsets
        if before is None:
            # Where the group was before it, an earlier segment knows.
            self.index.sweep(section.topic, section.queue, _row(section, stored_ms, group, high))
        elif high > before:
            self.index.span(section.topic, section.queue, before, high - 1, _row(section, stored_ms, group))
            offsets = (offset for offset in offsets if not before <= offset < high)
        self._spans(section, stored_ms, group, offsets)

    def _spans(self, section: Section, stored_ms: int, group: int, offsets: Iterable[int]) -> None:
        row = _row(section, stored_ms, group)
        for first, last in _runs(offsets):
            self.index.span(section.topic, section.queue, first, last, row)


class MessageHistory:
    """What happened to the message at one offset of a queue since it was stored, group by group.

    is_whole: False if records of its beginning may be gone: then a message may be settled that was never lent, and
    nothing is concluded from a group's moving past it, until an offset is set that makes the message fresh.
    """

    def __init__(self, offset: int, *, is_whole: bool = True) -> None:
        self.offset = offset
        self._is_whole = is_whole
        self.groups: dict[int, GroupHistory] = {}
        self.expired: Event | None = None
        """Retention took it from all groups that had not come so far."""
        self.resent: Event | None = None
        """Of a dead letter: it was given back."""
        self.gone: Event | None = None
        """Its lite topic went, and left the queue and the run of its offsets to another one."""
        self._last = -1

    def feed(self, row: Row, read: Callable[[], Section | None]) -> None:
        """What the index says comes next; `read` gives the record itself, None if it is there no more."""
        if self.gone is not None:
            return
        if row.kind == Kind.TRIM:
            self._trim(row)
            return
        if row.kind == Kind.LITE_TOPIC:
            self._go(row)
            return
        if row.kind == Kind.RESENT and row.group == NO_GROUP:
            self.resent = Event(What.RESENT, row.stored_ms, row.position)
            return
        group = self.groups.get(row.group) or self._joining(row.group)
        if row.kind == Kind.OFFSET:
            self._offset(group, row)
        elif row.kind == Kind.RESENT:
            self._resend(group, row)
        elif row.position != self._last and self._may_concern(group, row):
            # The same record comes twice where it is both a sweep and a span.
            section = read()
            if section is not None and section.kind == row.kind:
                self._last = row.position
                self._record(group, row, section)
        if group.events:
            self.groups[row.group] = group

    def _may_concern(self, group: GroupHistory, row: Row) -> bool:
        """Whether a LEASE or ACK can change anything: most need not be read."""
        if group.ending != Ending.WAITING:
            return False
        if row.kind == Kind.LEASE:
            return row.bound is None or (row.bound > self.offset and group.fresh and group.is_known)
        return group.lease is not None or not group.is_known

    def _joining(self, group: int) -> GroupHistory:
        """A group begins where the queue begins."""
        joining = GroupHistory(group, self._is_whole)
        if self.expired is not None:
            joining.add(self.expired, Ending.EXPIRED)
        return joining

    def _record(self, group: GroupHistory, row: Row, section: Section) -> None:
        if row.kind == Kind.LEASE:
            self._lease(group, row, section)
        elif row.kind == Kind.ACK:
            self._ack(group, row, section)

    def _lease(self, group: GroupHistory, row: Row, section: Section) -> None:
        _group, high, lease = records.read_lease(section)
        if group.ending != Ending.WAITING:
            return
        if self.offset not in lease.offsets:
            if group.fresh and high > self.offset and group.is_known:
                group.add(Event(What.FILTERED, row.stored_ms, row.position, client_id=lease.client_id), Ending.FILTERED)
            return
        event = Event(
            _kind_of_lease(lease, group.lease),
            row.stored_ms,
            row.position,
            lease.client_id,
            lease.attempt,
            lease.deadline_ms,
            lease.auto_renew,
        )
        group.add(event, Ending.WAITING, event)

    def _ack(self, group: GroupHistory, row: Row, section: Section) -> None:
        if self.offset not in records.read_ack(section)[1]:
            return
        what, ending = _SETTLED[Fate(section.type)]
        lease = group.lease
        client_id, attempt = (lease.client_id, lease.attempt) if lease is not None else ("", 0)
        group.add(Event(what, row.stored_ms, row.position, client_id, attempt), ending)

    def _offset(self, group: GroupHistory, row: Row) -> None:
        to = row.bound or 0
        event = Event(What.OFFSET_SET, row.stored_ms, row.position, offset=to)
        if to > self.offset and group.ending == Ending.WAITING:
            if group.is_known or group.lease is not None:
                group.add(event, Ending.SKIPPED)
        elif to <= self.offset and not (group.fresh and group.is_known):
            group.add(event, Ending.WAITING)
            group.is_known = True

    def _resend(self, group: GroupHistory, row: Row) -> None:
        """It is due, as if it had never been tried."""
        if group.ending != Ending.WAITING or not group.is_known:
            event = Event(What.RESENT, row.stored_ms, row.position)
            group.add(event, Ending.WAITING, event)

    def _go(self, row: Row) -> None:
        """The lite topic is no more, and nobody holds anything of it."""
        self.gone = Event(What.EXPIRED, row.stored_ms, row.position, with_lite_topic=True)
        if self._is_whole and self.expired is None:
            self.expired = self.gone
        for group in self.groups.values():
            if group.ending == Ending.WAITING:
                group.add(self.gone, Ending.EXPIRED)

    def _trim(self, row: Row) -> None:
        if (row.bound or 0) <= self.offset or self.expired is not None:
            return
        event = Event(What.EXPIRED, row.stored_ms, row.position)
        if self._is_whole:
            self.expired = event
        for group in self.groups.values():  # for those who hold it, it was copied
            if group.fresh and group.is_known:
                group.add(event, Ending.EXPIRED)


class HeldHistory:
    """What happened to a message while it was held: it has no offset, and is known by its origin."""

    def __init__(self, origin: Place) -> None:
        self.origin = origin
        self.events: list[Event] = []

    def feed(self, row: Row, read: Callable[[], Section | None]) -> None:
        """As MessageHistory.feed."""
        section = None if self._ended else read()
        if section is None or section.kind != row.kind or self.origin not in _origins(section):
            return
        match row.kind:
            case Kind.TRANSACTION_CHECKED:
                _transactions, client_id, next_ms = records.read_transaction_checked(section)
                number = len(self.events) + 1
                event = Event(What.CHECKED, row.stored_ms, row.position, client_id, number, next_ms)
            case Kind.TRANSACTION_END:
                what = What.COMMITTED if section.type == Resolution.COMMITTED else What.ROLLED_BACK
                event = Event(what, row.stored_ms, row.position, given_up=section.type == Resolution.GIVEN_UP)
            case _:
                what = What.DUE if row.kind == Kind.FIRED else What.RECALLED
                event = Event(what, row.stored_ms, row.position)
        self.events.append(event)

    @property
    def _ended(self) -> bool:
        return bool(self.events) and self.events[-1].what != What.CHECKED


_SETTLED = {
    Fate.CONSUMED: (What.ACKNOWLEDGED, Ending.CONSUMED),
    Fate.DEAD_LETTERED: (What.DEAD_LETTERED, Ending.DEAD_LETTERED),
    Fate.EXPIRED: (What.EXPIRED, Ending.EXPIRED),
}


def _kind_of_lease(lease: records.Lease, before: Event | None) -> What:
    if before is None or lease.attempt > before.attempt:
        return What.LEASED if lease.attempt else What.HELD_BACK
    return What.LEASE_CHANGED


def _origins(section: Section) -> Sequence[tuple[int, int]]:
    """Which held messages a record speaks of."""
    match section.kind:
        case Kind.TRANSACTION_END:
            return records.read_transaction_end(section)
        case Kind.TRANSACTION_CHECKED:
            return records.read_transaction_checked(section)[0]
        case _:
            return [origin for _due_ms, origin in records.read_timers(section)]


def _row(section: Section, stored_ms: int, group: int, bound: int | None = None) -> Row:
    return Row(section.position, stored_ms, section.kind, group, bound)


def _runs(offsets: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The offsets as ranges, both ends within; small gaps do not part them."""
    if isinstance(offsets, range):  # of a batch
        if offsets:
            yield offsets[0], offsets[-1]
        return
    first = last = -1
    for offset in sorted(offsets):
        if first < 0:
            first = offset
        elif offset - last > _NEIGHBOURS:
            yield first, last
            first = offset
        last = offset
    if first >= 0:
        yield first, last
