"""What the records say of one message is what the fold makes of it, whatever happened to the others."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.history_index import GrowingHistory, SealedHistory
from kourou_broker.log.section import MESSAGE_ROW, Section
from kourou_broker.state import State, records
from kourou_broker.state.history import Ending, GroupHistory, Historian, MessageHistory, What
from kourou_broker.state.records import Fate, Kind, Lease
from tests.simulation.cluster import group_definition, topic_definition

TOPIC, LETTERS, QUEUE, MESSAGES = 1, 9, 0, 40
GROUPS = (1, 2)


class Told:
    """Records as a log would hold them, in segments of some; `state` folds the same."""

    def __init__(self, segment: int) -> None:
        self.sections: list[Section] = []
        self._segment = segment
        self.state = State()
        self.state.apply(records.topic(topic_definition("orders", id=TOPIC)), 0)
        self.state.apply(records.topic(topic_definition("%DLQ%", id=LETTERS)), 0)
        for group in GROUPS:
            self.state.apply(records.group(group_definition(f"group-{group}", id=group)), 0)
        row = MESSAGE_ROW.pack(0, 0, 0)
        self.add(records.messages(definition_pb2.NORMAL, TOPIC, QUEUE, 0, [row] * MESSAGES, []))

    def add(self, section: Section) -> None:
        self.state.apply(section, 0)
        self.sections.append(section._replace(position=1000 * len(self.sections)))

    def history(self, offset: int, *, sealed: bool = True, since: int | None = None) -> MessageHistory:
        """since: the log begins at the record with this number."""
        history = MessageHistory(offset, is_whole=since is None)
        by_position = {section.position: section for section in self.sections}
        for start in range(0, len(self.sections), self._segment):
            historian = Historian(1000 * start)
            for section in self.sections[start : start + self._segment]:
                historian.add(section, section.position + 7)
            index: GrowingHistory | SealedHistory = historian.index
            if sealed:
                index = SealedHistory(memoryview(historian.index.seal()), 1000 * start)
            for row in index.rows(TOPIC, QUEUE, offset):
                if row.position >= 1000 * (since or 0):
                    history.feed(row, lambda row=row: by_position[row.position])
        return history


def lease(group: int, offsets: list[int], high: int, attempt: int = 1, client: str = "c", until: int = 99) -> Section:
    return records.lease(group, TOPIC, QUEUE, high, Lease(1, 1, until, attempt, False, client, offsets))


def ack(group: int, *offsets: int, fate: Fate = Fate.CONSUMED) -> Section:
    return records.ack(group, TOPIC, QUEUE, offsets, fate)


_step = st.tuples(
    st.sampled_from(["fresh", "fresh", "again", "ack", "ack", "offset", "trim", "resent"]),
    st.sampled_from(GROUPS),
    st.integers(0, MESSAGES),
    st.sets(st.integers(0, 11)),
)


def _record(told: Told, step: tuple[str, int, int, set[int]]) -> Section:
    """What a broker could write now."""
    what, group, number, some = step
    progress = told.state.progress.get((group, TOPIC, QUEUE))
    queue = told.state.queue(TOPIC, QUEUE)
    assert queue is not None
    high = progress.high if progress is not None else queue.first_offset
    pending = sorted(progress.pending) if progress is not None else []
    chosen = [pending[place] for place in some if place < len(pending)]
    match what:
        case "fresh":
            to = min(high + number, MESSAGES)
            return lease(group, [high + place for place in sorted(some) if high + place < to], to)
        case "again":
            return lease(group, chosen, high, attempt=2 + number % 3)
        case "ack":
            return ack(group, *chosen, number, fate=list(Fate)[number % 3])
        case "resent":
            return records.resent(group, LETTERS, 0, (TOPIC, QUEUE, min(number, MESSAGES - 1)))
        case "offset":
            return records.offset(group, TOPIC, QUEUE, max(number, queue.first_offset))
        case _:
            return records.trim(0, [(TOPIC, QUEUE, min(number // 4, MESSAGES))])


@settings(deadline=None)
@given(st.lists(_step, max_size=40), st.integers(1, 12))
def test_every_message_ends_as_in_the_fold(steps: list[tuple[str, int, int, set[int]]], segment: int) -> None:
    told = Told(segment)
    for step in steps:
        told.add(_record(told, step))
    for offset in range(MESSAGES):
        history = told.history(offset)
        for group in GROUPS:
            progress = told.state.progress.get((group, TOPIC, QUEUE))
            if progress is None:
                assert group not in history.groups
                continue
            said = history.groups.get(group)
            if offset in progress.pending:
                assert said is not None
                assert said.lease is not None
                assert said.lease.attempt == progress.pending[offset].attempt
            elif offset >= progress.high:
                assert said is None or said.fresh
            elif said is None:
                # it expired before the group had a record of it
                assert history.expired is not None
            else:
                assert said.ending != Ending.WAITING
            if said is not None:
                positions = [event.position for event in said.events]
                assert positions == sorted(positions)


@settings(deadline=None, max_examples=30)
@given(st.lists(_step, max_size=30), st.integers(1, 5))
def test_segments_make_no_difference(steps: list[tuple[str, int, int, set[int]]], segment: int) -> None:
    parted, whole = Told(segment), Told(1000)
    for step in steps:
        record = _record(whole, step)
        parted.add(record)
        whole.add(record)
    for offset in range(0, MESSAGES, 3):
        assert parted.history(offset).groups == whole.history(offset, sealed=False).groups


@settings(deadline=None)
@given(st.lists(_step, min_size=4, max_size=16), st.integers(1, 12))
def test_what_is_told_of_a_late_part_is_not_wrong(steps: list[tuple[str, int, int, set[int]]], since: int) -> None:
    """Of a message that outlived its segment: what is not known is left out."""
    told = Told(1)
    for what, group, number, some in steps:
        record = _record(told, (what, group, number, some))
        if record.kind == Kind.ACK:  # a broker settles what is pending
            progress = told.state.progress.get((group, TOPIC, QUEUE))
            pending = [offset for offset in records.read_ack(record)[1] if progress and offset in progress.pending]
            record = ack(group, *pending, fate=Fate(record.type))
        if record.kind != Kind.RESENT:  # it gives back what was settled, and chance does not know
            told.add(record)
    for offset in range(0, MESSAGES, 3):
        history, late = told.history(offset), told.history(offset, since=since).groups
        for number, group in late.items():
            whole = history.groups.get(number) or _untouched(number, history)
            if group.ending != Ending.WAITING:
                assert group.ending == whole.ending
            elif group.lease is not None:
                known_lease = whole.lease
                same = known_lease is not None and known_lease.position == group.lease.position
                assert same or whole.ending == Ending.EXPIRED
            # whose lease it was, the part may not know
            known = {(event.what, event.position) for event in whole.events}
            assert {(event.what, event.position) for event in group.events if event.what not in _AMBIGUOUS} <= known


_AMBIGUOUS = (What.LEASED, What.LEASE_CHANGED, What.OFFSET_SET)
"""Whether a lease is the first one, and an offset that is set changes anything, a part cannot tell."""


def _untouched(group: int, history: MessageHistory) -> GroupHistory:
    """Of a group for which nothing happened to the message itself."""
    untouched = GroupHistory(group, is_known=True)
    if history.expired is not None:
        untouched.add(history.expired, Ending.EXPIRED)
    return untouched


def _whats(told: Told, offset: int, group: int = 1) -> list[What]:
    return [event.what for event in told.history(offset).groups[group].events]


def test_a_life_with_all_that_can_happen() -> None:
    told = Told(3)
    told.add(lease(1, [0, 1], 3, client="c1", until=5000))
    told.add(lease(1, [1], 3, client="c1", until=7000))  # the time was changed
    told.add(lease(1, [1], 3, attempt=2, client="c2", until=9000))
    told.add(ack(1, 0))
    told.add(ack(1, 1, fate=Fate.DEAD_LETTERED))
    assert _whats(told, 0) == [What.LEASED, What.ACKNOWLEDGED]
    assert _whats(told, 1) == [What.LEASED, What.LEASE_CHANGED, What.LEASED, What.DEAD_LETTERED]
    assert _whats(told, 2) == [What.FILTERED]
    assert told.history(3).groups == {}
    first, changed, again, buried = told.history(1).groups[1].events
    assert (first.client_id, first.attempt, first.until_ms, first.position, first.stored_ms) == (
        "c1",
        1,
        5000,
        1000,
        1007,
    )
    assert (changed.until_ms, again.client_id, again.attempt, buried.client_id) == (7000, "c2", 2, "c2")
    endings = [told.history(offset).groups[1].ending for offset in (0, 1, 2)]
    assert endings == [Ending.CONSUMED, Ending.DEAD_LETTERED, Ending.FILTERED]


def test_offsets_skip_and_bring_back() -> None:
    told = Told(2)
    told.add(lease(1, [0], 1))
    told.add(records.offset(1, TOPIC, QUEUE, 5))
    told.add(records.offset(1, TOPIC, QUEUE, 6))  # says nothing new of those below 5
    assert [_whats(told, offset) for offset in (0, 1, 5)] == [
        [What.LEASED, What.OFFSET_SET],
        [What.OFFSET_SET],
        [What.OFFSET_SET],
    ]
    assert [told.history(offset).groups[1].ending for offset in (0, 1, 5)] == [Ending.SKIPPED] * 3
    told.add(records.offset(1, TOPIC, QUEUE, 1))
    told.add(lease(1, [1], 2))
    told.add(ack(1, 1))
    assert told.history(0).groups[1].ending == Ending.SKIPPED
    back = told.history(1).groups[1]
    assert [(event.what, event.offset) for event in back.events[:2]] == [(What.OFFSET_SET, 5), (What.OFFSET_SET, 1)]
    assert back.ending == Ending.CONSUMED
    assert told.history(3).groups[1].fresh


def test_a_dead_letter_is_given_back() -> None:
    told = Told(2)
    told.add(lease(1, [0], 1))
    told.add(ack(1, 0, fate=Fate.DEAD_LETTERED))
    told.add(records.resent(1, LETTERS, 0, (TOPIC, QUEUE, 0)))
    assert told.history(0).groups[1].lease is not None
    told.add(lease(1, [0], 1, client="c2"))
    told.add(ack(1, 0))
    again = told.history(0).groups[1]
    assert _whats(told, 0) == [What.LEASED, What.DEAD_LETTERED, What.RESENT, What.LEASED, What.ACKNOWLEDGED]
    assert again.ending == Ending.CONSUMED


def test_a_copy_that_a_set_offset_made_fresh_expires() -> None:
    """For the group whose offset was set; another one held it, so that it was copied."""
    told = Told(2)
    told.add(lease(1, [0], 1))
    told.add(lease(2, [0], 1))
    told.add(ack(1, 0))
    told.add(records.offset(1, TOPIC, QUEUE, 0))
    told.add(records.trim(0, [(TOPIC, QUEUE, 3)]))
    late = told.history(0, since=4)
    assert late.groups[1].ending == Ending.EXPIRED
    assert [event.what for event in late.groups[1].events] == [What.OFFSET_SET, What.EXPIRED]
    assert 2 not in late.groups


def test_expired_before_a_group_came_so_far() -> None:
    told = Told(2)
    told.add(lease(1, [0], 1))
    told.add(records.trim(0, [(TOPIC, QUEUE, 3)]))
    told.add(lease(2, [3], 4))
    assert told.history(0).groups[1].ending == Ending.WAITING  # it is lent, and was carried forward
    assert told.history(0).groups[2].ending == Ending.EXPIRED
    assert told.history(2).expired is not None
    assert told.history(3).expired is None


def test_a_held_back_message_is_lent_later() -> None:
    told = Told(9)
    told.add(lease(1, [0], 1, client="c1"))
    told.add(lease(1, [1], 2, attempt=0, client="c1"))
    told.add(lease(1, [1], 2, attempt=1, client="c1"))
    assert _whats(told, 1) == [What.HELD_BACK, What.LEASED]


def test_a_record_that_is_gone_is_passed_over() -> None:
    told = Told(9)
    told.add(lease(1, [0], 1))
    history = MessageHistory(0)
    historian = Historian(0)
    for section in told.sections:
        historian.add(section, 1)
    for row in historian.index.rows(TOPIC, QUEUE, 0):
        history.feed(row, lambda: None)
    assert history.groups == {}


@pytest.mark.parametrize("settle", [lambda: ack(1, 0), lambda: records.offset(1, TOPIC, QUEUE, 1)])
def test_records_that_cannot_matter_are_not_read(settle: Callable[[], Section]) -> None:
    told = Told(2)
    told.add(lease(1, [0], 1))
    told.add(settle())
    for number in range(1, 30):
        told.add(lease(1, [number], number + 1))
    read: list[int] = []
    history = MessageHistory(0)
    for start in range(0, len(told.sections), 2):
        historian = Historian(1000 * start)
        for section in told.sections[start : start + 2]:
            historian.add(section, 1)
        for row in historian.index.rows(TOPIC, QUEUE, 0):

            def section_at(position: int = row.position) -> Section:
                read.append(position)
                return told.sections[position // 1000]

            history.feed(row, section_at)
    assert len(read) <= 2
