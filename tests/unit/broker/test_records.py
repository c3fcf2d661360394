"""Records and snapshots say after reading what they said before writing; the fold knows nothing but them."""

import contextlib
import copy
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.section import MESSAGE_ROW, Section
from kourou_broker.state import Fate, Kind, Resolution, State, records, snapshot
from kourou_broker.state.half_messages import TransactionId
from kourou_broker.state.records import Lease
from kourou_broker.state.state import UnknownRecord
from kourou_broker.state.timers import Place
from tests.simulation.cluster import group_definition, topic_definition
from tests.simulation.test_broker_crashes import facts

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
LEASES = st.builds(
    Lease,
    incarnation=U64,
    number=U64,
    deadline_ms=U64,
    attempt=U32,
    auto_renew=st.booleans(),
    client_id=st.text(max_size=60),
    offsets=st.lists(U64, max_size=40),
)


def _fields(lease: Lease) -> tuple[Any, ...]:
    return (
        lease.incarnation,
        lease.number,
        lease.deadline_ms,
        lease.attempt,
        lease.auto_renew,
        lease.client_id,
        list(lease.offsets),
    )


@given(group=U32, topic=U32, queue=U32, high=U64, lease=LEASES)
def test_leases(group: int, topic: int, queue: int, high: int, lease: Lease) -> None:
    section = records.lease(group, topic, queue, high, lease)
    assert (section.kind, section.topic, section.queue) == (Kind.LEASE, topic, queue)
    read_group, read_high, read = records.read_lease(section)
    assert (read_group, read_high) == (group, high)
    assert _fields(read) == _fields(lease)


def test_a_client_id_that_is_too_long_is_cut_not_refused() -> None:
    lease = Lease(1, 2, 3, 4, False, "é" * 300, [5])
    _group, _high, read = records.read_lease(records.lease(1, 1, 0, 6, lease))
    assert list(read.offsets) == [5]
    assert read.client_id.startswith("é" * 100)


@given(group=U32, offsets=st.lists(U64, max_size=40), fate=st.sampled_from(Fate))
def test_acks(group: int, offsets: list[int], fate: Fate) -> None:
    section = records.ack(group, 7, 8, offsets, fate)
    read_group, read = records.read_ack(section)
    assert (read_group, list(read), section.type, section.count) == (group, offsets, fate, len(offsets))


@given(group=U32, to=U64)
def test_offsets(group: int, to: int) -> None:
    assert records.read_offset(records.offset(group, 7, 8, to)) == (group, to)


@given(position=U64, rows=st.lists(st.tuples(U32, U32, U64), max_size=10))
def test_trims(position: int, rows: list[tuple[int, int, int]]) -> None:
    assert records.read_trim(records.trim(position, rows)) == (position, rows)


@given(at=U64, stored_ms=U64, body=st.binary(max_size=50))
def test_carried_messages(at: int, stored_ms: int, body: bytes) -> None:
    row = MESSAGE_ROW.pack(len(body), 0, 7)
    section = records.carry(1, 2, at, stored_ms, row, body)
    assert section.base == at
    assert records.read_carry(section) == (stored_ms, row + body)


@given(group=U32, topic=U32, letter=U64, origin=st.tuples(U32, U32, U64))
def test_resent_letters(group: int, topic: int, letter: int, origin: tuple[int, int, int]) -> None:
    section = records.resent(group, topic, letter, origin)
    assert (section.topic, section.base) == (topic, letter)
    assert records.read_resent(section) == (group, origin)


TRANSACTIONS = st.lists(st.tuples(U64, U32), max_size=20)


@given(transactions=TRANSACTIONS, resolution=st.sampled_from(Resolution))
def test_ends_of_transactions(transactions: list[tuple[int, int]], resolution: Resolution) -> None:
    section = records.transaction_end(3, transactions, resolution)
    assert (section.type, section.topic, section.count) == (resolution, 3, len(transactions))
    assert records.read_transaction_end(section) == transactions


@given(transactions=TRANSACTIONS, client=st.text(max_size=60), next_ms=U64)
def test_questions_about_transactions(transactions: list[tuple[int, int]], client: str, next_ms: int) -> None:
    section = records.transaction_checked(3, transactions, client, next_ms)
    assert records.read_transaction_checked(section) == (transactions, client, next_ms)


@given(position=U64, place=U32)
def test_transaction_ids(position: int, place: int) -> None:
    transaction = TransactionId(position, place)
    assert TransactionId.parse(str(transaction)) == transaction


@given(text=st.text(max_size=30) | st.text("0123456789ABCDEFabcdef_-+ ", min_size=24, max_size=24))
def test_no_two_texts_name_one_transaction(text: str) -> None:
    transaction = TransactionId.parse(text)
    assert transaction is None or str(transaction) == text


# The fold

_IDS = st.sampled_from((1, 1, 1, 2, 3))
_QUEUES = st.sampled_from((0, 0, 1, 3))
_LENT = st.lists(st.integers(0, 30), unique=True, max_size=8).map(sorted)


@st.composite
def _steps(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """What could happen, in the order it does; numbers of queues are made to fit when they are applied."""
    one = st.one_of(
        st.tuples(st.just("topic"), st.sampled_from("ab"), st.integers(1, 3), st.booleans()),
        st.tuples(st.just("group"), st.sampled_from("xy"), st.booleans()),
        st.tuples(st.just("messages"), _IDS, _QUEUES, st.integers(1, 5)),
        st.tuples(st.just("lease"), _IDS, _IDS, _QUEUES, _LENT),
        st.tuples(st.just("ack"), _IDS, _IDS, _QUEUES, _LENT),
        st.tuples(st.just("offset"), _IDS, _IDS, _QUEUES, st.integers(0, 30)),
        st.tuples(st.just("trim"), _IDS, _QUEUES, st.integers(0, 30)),
        st.tuples(st.just("carry"), _IDS, _QUEUES, st.integers(0, 30)),
        st.tuples(st.just("resent"), _IDS, st.integers(0, 5), _IDS, _QUEUES, st.integers(0, 30)),
        st.tuples(st.just("half"), _IDS, st.integers(1, 3)),
        st.tuples(st.just("transaction end"), _IDS, st.integers(0, 9), st.sampled_from(Resolution)),
        st.tuples(st.just("transaction checked"), _IDS, st.integers(0, 9)),
        st.tuples(st.just("half carried"), _IDS, st.integers(0, 9)),
        st.tuples(st.just("broker"), st.sampled_from((definition_pb2.READ, definition_pb2.READ_WRITE))),
    )
    there = [("topic", "a", 3, False), ("group", "x", False), ("messages", 1, 0, 5), ("messages", 1, 1, 5)]
    return [*there, *draw(st.lists(one, max_size=40))]


def _section(state: State, step: tuple[Any, ...], number: int) -> Section | None:
    """The record for a step, given the state before it."""
    match step:
        case ("topic", name, queues, deleted):
            known = next((topic for topic in state.topics.values() if topic.name.name == name), None)
            if known is None and deleted:
                return None
            queues = max(queues, len(known.queues)) if known else queues
            id_ = known.id if known else state.next_topic_id
            return records.topic(topic_definition(name, queues, number, id=id_, deleted=deleted))
        case ("group", name, deleted):
            known_group = next((group for group in state.groups.values() if group.name.name == name), None)
            id_ = known_group.id if known_group else state.next_group_id
            return records.group(group_definition(name, version=number, id=id_, deleted=deleted))
        case ("messages", topic, queue, count):
            there = state.queue(topic, queue)
            if there is None:
                return None
            rows, bodies = [MESSAGE_ROW.pack(1, 0, 0)] * count, [b"m"] * count
            return records.messages(definition_pb2.NORMAL, topic, queue, there.next_offset, rows, bodies)
        case ("lease", group, topic, queue, lent):
            high = max(lent, default=-1) + 1
            return records.lease(group, topic, queue, high, Lease(number, number, number, 1, False, "c", lent))
        case ("ack", group, topic, queue, offsets):
            return records.ack(group, topic, queue, offsets, Fate.CONSUMED)
        case ("offset", group, topic, queue, to):
            return records.offset(group, topic, queue, to)
        case ("resent", group, letter, topic, queue, offset):
            return records.resent(group, 1, letter, (topic, queue, offset))
        case ("trim", topic, queue, first):
            return records.trim(number * 50, [(topic, queue, first)])
        case ("carry", topic, queue, offset):
            return records.carry(topic, queue, offset, number, MESSAGE_ROW.pack(1, 0, 0), b"m")
        case ("half", topic, count):
            tails = [
                definition_pb2.SystemProperties(message_id=f"{number}.{n}").SerializeToString() for n in range(count)
            ]
            rows = [MESSAGE_ROW.pack(1, len(tail), 0) for tail in tails]
            whens, stored_ms = [number + 6000] * count, [number] * count
            return records.held(
                definition_pb2.TRANSACTION, topic, whens, stored_ms, rows, [b"m" + tail for tail in tails]
            )
        case ("transaction end", topic, which, resolution):
            transaction = _open_transaction(state, topic, which)
            return records.transaction_end(topic, [transaction], resolution)
        case ("transaction checked", topic, which):
            return records.transaction_checked(topic, [_open_transaction(state, topic, which)], "c", number + 30_000)
        case ("half carried", topic, which):
            origin = Place(*_open_transaction(state, topic, which))
            return records.held_carried(
                definition_pb2.TRANSACTION, topic, [origin], [5], [6], [MESSAGE_ROW.pack(1, 0, 0)], [b"m"]
            )
        case ("broker", permission):
            state_broker = copy.copy(state.broker)
            state_broker.permission = permission
            return records.broker(state_broker)
    raise AssertionError(step)


def _open_transaction(state: State, topic: int, which: int) -> tuple[int, int]:
    """One of the topic's, or one that never was."""
    there = [*state.half_messages.by_topic.get(topic, {})]
    return there[which % len(there)] if there else (7, 0)


@settings(max_examples=300, deadline=None)
@given(steps=_steps())
def test_from_any_snapshot_the_log_folds_to_the_same_state(steps: list[tuple[Any, ...]]) -> None:
    state = State()
    sections: list[Section] = []
    snapshots: list[tuple[int, bytes]] = []
    for number, step in enumerate(steps, 1):
        section = _section(state, step, number)
        if section is not None:
            state.apply(section, number * 100)
            sections.append(section._replace(position=number * 100))
        snapshots.append((len(sections), snapshot.encode(state, number)))
    for count, data in snapshots:
        again, _position = snapshot.decode(data)
        for section in sections[count:]:
            again.apply(section, section.position)
        assert facts(again) == facts(state)


@given(data=st.binary(max_size=100))
def test_garbage_is_no_snapshot(data: bytes) -> None:
    with pytest.raises(snapshot.DamagedSnapshot):
        snapshot.decode(data)


_READERS = {
    Kind.LEASE: records.read_lease,
    Kind.ACK: records.read_ack,
    Kind.OFFSET: records.read_offset,
    Kind.TRIM: records.read_trim,
    Kind.CARRY: records.read_carry,
    Kind.HELD: records.read_held,
    Kind.HELD_CARRIED: lambda section: (records.read_held(section), records.read_origins(section)),
    Kind.FIRED: records.read_timers,
    Kind.RECALLED: records.read_timers,
    Kind.TRANSACTION_END: records.read_transaction_end,
    Kind.TRANSACTION_CHECKED: records.read_transaction_checked,
    Kind.RESENT: records.read_resent,
}


@given(kind=st.sampled_from(sorted(_READERS)), count=U32 | st.integers(0, 5), payload=st.binary(max_size=120))
@settings(max_examples=1000, deadline=None)
def test_a_record_of_garbage_is_read_or_refused(kind: Kind, count: int, payload: bytes) -> None:
    """Its frame is whole, so only a fault of a writer makes it: no reader hangs, or takes more memory than it holds."""
    with contextlib.suppress(ValueError, struct.error):
        _READERS[kind](Section(kind, 0, 1, 0, 0, count, payload))


def test_a_flipped_bit_anywhere_in_a_snapshot_is_noticed() -> None:
    state = State()
    state.apply(records.topic(topic_definition("orders", 2, id=1)), 0)
    data = snapshot.encode(state, 7)
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            with pytest.raises(snapshot.DamagedSnapshot):
                snapshot.decode(bytes(damaged))
    for end in range(len(data)):
        with pytest.raises(snapshot.DamagedSnapshot):
            snapshot.decode(data[:end])


def test_records_of_a_newer_version_are_refused_not_ignored() -> None:
    state = State()
    with pytest.raises(UnknownRecord):
        state.apply(Section(250, 0, 0, 0, 0, 0, b""), 0)
    state.apply(records.topic(topic_definition("orders", 1, id=1)), 0)
    with pytest.raises(UnknownRecord):
        state.apply(records.messages(77, 1, 0, 0, [MESSAGE_ROW.pack(1, 0, 0)], [b"m"]), 0)


def test_two_messages_never_get_one_offset() -> None:
    state = State()
    state.apply(records.topic(topic_definition("orders", 1, id=1)), 0)
    rows, bodies = [MESSAGE_ROW.pack(1, 0, 0)] * 3, [b"m"] * 3
    state.apply(records.messages(definition_pb2.NORMAL, 1, 0, 0, rows, bodies), 0)
    for base in (0, 2):
        with pytest.raises(AssertionError):
            state.apply(records.messages(definition_pb2.NORMAL, 1, 0, base, rows, bodies), 0)
    state.apply(records.messages(definition_pb2.NORMAL, 1, 0, 7, rows, bodies), 0)  # a repair skipped some
    assert state.topics_by_id[1].queues[0].next_offset == 10
