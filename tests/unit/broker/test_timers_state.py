"""Delayed messages in the state: found by due time and origin, wherever they were carried, and in a snapshot too."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.section import MESSAGE_ROW, Section
from kourou_broker.state import State, records, snapshot
from kourou_broker.state.state import UnknownRecord
from kourou_broker.state.timers import Place, Timer, Timers
from tests.simulation.cluster import topic_definition

DELAY = definition_pb2.DELAY
ROW = MESSAGE_ROW.pack(1, 1, 0)


def state_with_topic() -> State:
    state = State()
    state.apply(records.topic(topic_definition("later", type=DELAY, id=7)), 0)
    return state


def held(*dues: int, topic: int = 7) -> Section:
    return records.held(DELAY, topic, dues, [1] * len(dues), [ROW] * len(dues), [b"xy"] * len(dues))


def carried(position: int, *messages: tuple[int, Place]) -> Section:
    count = len(messages)
    dues, origins = [due for due, _ in messages], [origin for _, origin in messages]
    return records.held_carried(DELAY, 7, origins, dues, [1] * count, [ROW] * count, [b"xy"] * count)


def test_they_come_in_the_order_of_their_times_then_of_their_coming() -> None:
    state = state_with_topic()
    state.apply(held(30, 10), 1000)
    state.apply(held(10, 20), 2000)
    timers = state.timers[7]
    assert [(timer.due_ms, timer.origin) for timer in timers] == [
        (10, (1000, 1)),
        (10, (2000, 0)),
        (20, (2000, 1)),
        (30, (1000, 0)),
    ]
    assert timers.first_due_ms == 10
    assert [timer.due_ms for timer in timers.due(20, 10)] == [10, 10, 20]
    assert [timer.due_ms for timer in timers.due(20, 2)] == [10, 10]
    assert timers.due(9, 10) == []


def test_a_carried_one_keeps_its_name() -> None:
    state = state_with_topic()
    state.apply(held(10, 20, 30), 1000)
    state.apply(carried(5000, (20, Place(1000, 1)), (10, Place(1000, 0))), 5000)
    assert state.timers[7].find(20, Place(1000, 1)) == Timer(20, Place(1000, 1), Place(5000, 0))
    assert state.timers[7].find(10, Place(1000, 0)) == Timer(10, Place(1000, 0), Place(5000, 1))
    state.apply(records.fired(7, [(10, Place(1000, 0)), (20, Place(1000, 1))]), 0)
    assert list(state.timers[7]) == [Timer(30, Place(1000, 2), Place(1000, 2))]


def test_what_has_ended_is_not_brought_back_by_a_copy() -> None:
    """A copy is made of what was recalled or fired in the same turn."""
    state = state_with_topic()
    state.apply(held(10, 20), 1000)
    state.apply(records.recalled(7, 20, Place(1000, 1)), 0)
    state.apply(carried(5000, (20, Place(1000, 1))), 5000)
    assert [timer.due_ms for timer in state.timers[7]] == [10]
    state.apply(records.fired(7, [(10, Place(1000, 0))]), 0)
    state.apply(carried(6000, (10, Place(1000, 0))), 6000)
    state.apply(records.fired(7, [(10, Place(1000, 0))]), 0)
    assert not state.timers


def test_those_of_a_deleted_topic_go_with_it() -> None:
    state = state_with_topic()
    state.apply(held(10), 1000)
    state.apply(records.topic(topic_definition("later", type=DELAY, id=7, version=2, deleted=True)), 0)
    assert not state.timers
    state.apply(held(20), 2000)
    assert not state.timers


def test_held_messages_of_an_unknown_type_are_of_a_newer_version() -> None:
    with pytest.raises(UnknownRecord, match="type 99"):
        state_with_topic().apply(held(10)._replace(type=99), 0)


def test_a_record_is_read_as_it_was_written() -> None:
    section = carried(0, (10, Place(1 << 50, 3)), (11, Place(2, 4)))
    whens, stored_ms, messages = records.read_held(section)
    assert (list(whens), list(stored_ms), messages) == ([10, 11], [1, 1], ROW + ROW + b"xyxy")
    assert records.read_origins(section) == [(1 << 50, 3), (2, 4)]
    fired = records.fired(7, [(10, Place(1 << 50, 3)), (11, Place(2, 4))])
    assert records.read_timers(fired) == [(10, (1 << 50, 3)), (11, (2, 4))]


def test_a_snapshot_holds_them() -> None:
    state = state_with_topic()
    state.apply(records.topic(topic_definition("soon", type=DELAY, id=8)), 0)
    rng = random.Random(3)
    for position in range(1000, 4000, 1000):
        state.apply(held(*(rng.randrange(1, 1 << 42) for _ in range(50))), position)
    state.apply(held(5, 5, topic=8), 9000)
    first = next(iter(state.timers[7]))
    state.apply(carried(10_000, (first.due_ms, first.origin)), 10_000)
    again, position = snapshot.decode(snapshot.encode(state, 11_000))
    assert position == 11_000
    assert {topic: list(timers) for topic, timers in again.timers.items()} == {
        topic: list(timers) for topic, timers in state.timers.items()
    }
    assert next(iter(again.timers[7])).place == (10_000, 0)


@given(st.lists(st.tuples(st.integers(1, 1 << 43), st.integers(0, (1 << 56) - 1), st.integers(0, (1 << 24) - 1))))
def test_walks_in_steps_meet_all(rows: list[tuple[int, int, int]]) -> None:
    wanted = sorted({(due, Place(position, index)) for due, position, index in rows})
    timers = Timers()
    timers.add(Timer(due, origin, Place(0, 0)) for due, origin in wanted)
    met: list[Timer] = []
    for _ in itertools.count():
        step = timers.following(met[-1] if met else None, 3)
        if not step:
            break
        met += step
        timers.move(met[-1].due_ms, met[-1].origin, Place((1 << 56) - 1, (1 << 24) - 1))
    assert [(timer.due_ms, timer.origin) for timer in met] == wanted
    for due, origin in wanted:
        timers.remove(due, origin)
    assert len(timers) == 0
