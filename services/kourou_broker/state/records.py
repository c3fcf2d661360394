"""The records of the log: one section each, written here and read back here, nowhere else.

A record's section header carries kind, type, topic, queue, base and count; what else it says is in its payload.
Layouts are little-endian and listed in docs/log-format.md.
"""

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.log.section import Section
from kourou_broker.state.timers import Place


class Kind(IntEnum):
    """What a section records. A number is never used again; a reader that meets an unknown one refuses the log."""

    MESSAGES = 1
    TOPIC = 2
    GROUP = 3
    LEASE = 4
    ACK = 5
    OFFSET = 6
    TRIM = 7
    CARRY = 8
    BROKER = 9
    HELD = 10
    HELD_CARRIED = 11
    FIRED = 12
    RECALLED = 13
    TRANSACTION_END = 14
    TRANSACTION_CHECKED = 15
    LITE_TOPIC = 16
    RESENT = 17
    BATCH = 18


class Fate(IntEnum):
    """How a message ended for a group: the type of an ACK section."""

    CONSUMED = 1
    DEAD_LETTERED = 2
    EXPIRED = 3


class Resolution(IntEnum):
    """How a transaction ended: the type of a TRANSACTION_END section."""

    COMMITTED = 1
    ROLLED_BACK = 2
    GIVEN_UP = 3
    """Rolled back by the broker: nobody said in time what became of it."""


_LEASE = struct.Struct("<IQQQQIBB")
_GROUP_OFFSET = struct.Struct("<IQ")
_GROUP = struct.Struct("<I")
_TRIM_ROW = struct.Struct("<IIQ")
_TRIM_HEAD = struct.Struct("<Q")
_CARRY = struct.Struct("<Q")
_CHECK = struct.Struct("<QB")
CARRY_HEAD_BYTES = _CARRY.size
_PLACE = struct.Struct("<QI")
_TIMER = struct.Struct("<QQI")
_RESENT = struct.Struct("<IIIQ")
HELD_KINDS = frozenset((Kind.HELD, Kind.HELD_CARRIED))


@dataclass(slots=True, eq=False)
class Lease:
    """Some messages of a queue lent to one client of a group until a deadline. Compared by identity.

    Or held back from all clients, since each of them waits for an older one of its message group.
    """

    incarnation: int
    number: int
    deadline_ms: int
    attempt: int
    auto_renew: bool
    client_id: str
    offsets: Sequence[int]

    @property
    def holds_back(self) -> bool:
        """Nobody was lent the messages yet. A lease to a client has a number."""
        return not self.number


def holding_back(offsets: Sequence[int]) -> Lease:
    return Lease(0, 0, 0, 0, False, "", offsets)


def messages(type_: int, topic: int, queue: int, base: int, rows: Sequence[bytes], bodies: Sequence[bytes]) -> Section:
    """Messages entering a queue at offset base. rows are MESSAGE_ROWs, bodies what they measure, in the same order."""
    return Section(Kind.MESSAGES, type_, topic, queue, base, len(rows), b"".join((*rows, *bodies)))


def batch(type_: int, topic: int, queue: int, base: int, count: int, payload: bytes) -> Section:
    """The same, as a client sent them in one piece: see log/batch.py."""
    return Section(Kind.BATCH, type_, topic, queue, base, count, payload)


def held(
    type_: int,
    topic: int,
    whens: Sequence[int],
    stored_ms: Sequence[int],
    rows: Sequence[bytes],
    bodies: Sequence[bytes],
) -> Section:
    """Messages that no consumer may see yet: delayed or half ones. They are in no queue.

    whens: for each of them the time (ms) when it is due, or when its producer is to be asked what became of it.
    """
    payload = b"".join((array("Q", whens).tobytes(), array("Q", stored_ms).tobytes(), *rows, *bodies))
    return Section(Kind.HELD, type_, topic, 0, 0, len(rows), payload)


def held_carried(
    type_: int,
    topic: int,
    origins: Sequence[Place],
    whens: Sequence[int],
    stored_ms: Sequence[int],
    rows: Sequence[bytes],
    bodies: Sequence[bytes],
) -> Section:
    """Copies of held messages, made before their segments are dropped: from now on they are here.

    origins: the place by which the state knows each of them; the rest as in `held`, with the time when it was first
    stored.
    """
    copies = held(type_, topic, whens, stored_ms, rows, bodies)
    payload = b"".join(_PLACE.pack(*origin) for origin in origins) + copies.payload
    return Section(Kind.HELD_CARRIED, type_, topic, 0, 0, len(rows), payload)


def read_origins(section: Section) -> list[Place]:
    """Of a HELD_CARRIED section."""
    return [Place(*row) for row in _PLACE.iter_unpack(section.payload[: _PLACE.size * section.count])]


def read_held(section: Section) -> tuple[Sequence[int], Sequence[int], bytes]:
    """-> whens, when they were first stored (ms), the messages in the form of a MESSAGES section's payload.

    Of a HELD or a HELD_CARRIED section.
    """
    at, size = held_table_at(section.kind, section.count), 8 * section.count
    whens = array("Q", bytes(section.payload[at - 2 * size : at - size]))
    stored_ms = array("Q", bytes(section.payload[at - size : at]))
    return whens, stored_ms, section.payload[at:]


def held_table_at(kind: int, count: int) -> int:
    """Where in the payload of a HELD or HELD_CARRIED section the table of rows begins."""
    return count * (16 + (_PLACE.size if kind == Kind.HELD_CARRIED else 0))


def fired(topic: int, timers: Sequence[tuple[int, Place]]) -> Section:
    """The time of delayed messages has come: those of them that are still there enter a queue in the same frame.

    Each is named by its due time (ms) and its origin.
    """
    return _timers(Kind.FIRED, topic, timers)


def recalled(topic: int, due_ms: int, origin: Place) -> Section:
    """A delayed message is taken back."""
    return _timers(Kind.RECALLED, topic, [(due_ms, origin)])


def _timers(kind: Kind, topic: int, timers: Sequence[tuple[int, Place]]) -> Section:
    payload = b"".join(_TIMER.pack(due_ms, *origin) for due_ms, origin in timers)
    return Section(kind, definition_pb2.DELAY, topic, 0, 0, len(timers), payload)


def read_timers(section: Section) -> list[tuple[int, Place]]:
    """Of a FIRED or RECALLED section: due times (ms) and origins."""
    return [(due_ms, Place(position, index)) for due_ms, position, index in _TIMER.iter_unpack(section.payload)]


def topic(definition: record_pb2.Topic) -> Section:
    return Section(Kind.TOPIC, 0, definition.id, 0, 0, 1, definition.SerializeToString())


def lite_topic(definition: record_pb2.LiteTopic, *, gone: bool = False) -> Section:
    """A lite topic is new, or its times have changed; gone: it and its messages are no more."""
    return Section(Kind.LITE_TOPIC, gone, definition.topic, definition.queue, 0, 1, definition.SerializeToString())


def group(definition: record_pb2.Group) -> Section:
    return Section(Kind.GROUP, 0, 0, 0, 0, 1, definition.SerializeToString())


def broker(definition: record_pb2.Broker) -> Section:
    return Section(Kind.BROKER, 0, 0, 0, 0, 1, definition.SerializeToString())


def lease(group_id: int, topic_id: int, queue: int, high: int, what: Lease) -> Section:
    """Messages are lent; those below high that are neither lent nor pending are settled: the filter left them out."""
    client = what.client_id.encode()[:255]
    head = _LEASE.pack(
        group_id, what.incarnation, what.number, what.deadline_ms, high, what.attempt, what.auto_renew, len(client)
    )
    base, offsets = _packed_offsets(what.offsets)
    return Section(Kind.LEASE, 0, topic_id, queue, base, len(what.offsets), head + client + offsets)


def read_lease(section: Section) -> tuple[int, int, Lease]:
    """-> group id, high, lease."""
    group_id, incarnation, number, deadline_ms, high, attempt, auto_renew, size = _LEASE.unpack_from(section.payload)
    client_end = _LEASE.size + size
    client_id = bytes(section.payload[_LEASE.size : client_end]).decode(errors="replace")
    offsets = _offsets(section, client_end)
    return group_id, high, Lease(incarnation, number, deadline_ms, attempt, bool(auto_renew), client_id, offsets)


def transaction_end(topic_id: int, transactions: Sequence[tuple[int, int]], resolution: Resolution) -> Section:
    """Transactions are over. The copy of a committed message, in its queue, stands in the same frame."""
    rows = b"".join(_PLACE.pack(*transaction) for transaction in transactions)
    return Section(Kind.TRANSACTION_END, resolution, topic_id, 0, 0, len(transactions), rows)


def read_transaction_end(section: Section) -> list[tuple[int, int]]:
    """-> where their half messages were first stored: log position of the section, and which of its messages."""
    return list(_PLACE.iter_unpack(section.payload))


def transaction_checked(
    topic_id: int, transactions: Sequence[tuple[int, int]], client_id: str, next_check_ms: int
) -> Section:
    """A producer was asked what became of transactions."""
    client = client_id.encode()[:255]
    rows = b"".join(_PLACE.pack(*transaction) for transaction in transactions)
    payload = _CHECK.pack(next_check_ms, len(client)) + client + rows
    return Section(Kind.TRANSACTION_CHECKED, 0, topic_id, 0, 0, len(transactions), payload)


def read_transaction_checked(section: Section) -> tuple[list[tuple[int, int]], str, int]:
    """-> the transactions, who was asked, when they come up next (ms)."""
    next_check_ms, size = _CHECK.unpack_from(section.payload)
    client_end = _CHECK.size + size
    client_id = bytes(section.payload[_CHECK.size : client_end]).decode(errors="replace")
    return list(_PLACE.iter_unpack(section.payload[client_end:])), client_id, next_check_ms


def ack(group_id: int, topic_id: int, queue: int, offsets: Sequence[int], fate: Fate) -> Section:
    base, packed = _packed_offsets(offsets)
    return Section(Kind.ACK, fate, topic_id, queue, base, len(offsets), _GROUP.pack(group_id) + packed)


def read_ack(section: Section) -> tuple[int, Sequence[int]]:
    """-> group id, offsets."""
    return _GROUP.unpack_from(section.payload)[0], _offsets(section, _GROUP.size)


def _packed_offsets(offsets: Sequence[int]) -> tuple[int, bytes]:
    """-> base and what stands at the payload's end. Of a run of offsets the base and the count say all."""
    if isinstance(offsets, range):
        return offsets.start, b""
    return 0, array("Q", offsets).tobytes()


def _offsets(section: Section, at: int) -> Sequence[int]:
    if len(section.payload) == at:
        return range(section.base, section.base + section.count)
    return array("Q", bytes(section.payload[at:]))


def offset(group_id: int, topic_id: int, queue: int, to: int) -> Section:
    """Progress set from outside: below is acknowledged, from there on nothing is, and leases are void."""
    return Section(Kind.OFFSET, 0, topic_id, queue, 0, 1, _GROUP_OFFSET.pack(group_id, to))


def read_offset(section: Section) -> tuple[int, int]:
    """-> group id, offset."""
    group_id, to = _GROUP_OFFSET.unpack(section.payload)
    return group_id, to


def resent(group_id: int, letters_topic: int, letter: int, origin: tuple[int, int, int]) -> Section:
    """A dead letter is given back to its group, which had settled it; origin: topic id, queue and offset."""
    return Section(Kind.RESENT, 0, letters_topic, 0, letter, 1, _RESENT.pack(group_id, *origin))


def read_resent(section: Section) -> tuple[int, tuple[int, int, int]]:
    """-> group id, origin."""
    group_id, *origin = _RESENT.unpack(section.payload)
    return group_id, (origin[0], origin[1], origin[2])


def trim(position: int, first_offsets: Sequence[tuple[int, int, int]]) -> Section:
    """The log starts at position from now on; each row is (topic id, queue, its first offset)."""
    rows = b"".join(_TRIM_ROW.pack(*row) for row in first_offsets)
    return Section(Kind.TRIM, 0, 0, 0, 0, len(first_offsets), _TRIM_HEAD.pack(position) + rows)


def read_trim(section: Section) -> tuple[int, list[tuple[int, int, int]]]:
    """-> position, rows."""
    return _TRIM_HEAD.unpack_from(section.payload)[0], list(_TRIM_ROW.iter_unpack(section.payload[_TRIM_HEAD.size :]))


def carry(topic_id: int, queue: int, at: int, stored_ms: int, row: bytes, body: bytes) -> Section:
    """A copy of one pending message, made before its segment is dropped. It keeps its offset and store time."""
    return Section(Kind.CARRY, 0, topic_id, queue, at, 1, _CARRY.pack(stored_ms) + row + body)


def read_carry(section: Section) -> tuple[int, bytes]:
    """-> when the message was first stored (ms), its payload in the form of a MESSAGES section of one."""
    return carried_ms(section.payload), section.payload[CARRY_HEAD_BYTES:]


def carried_ms(payload: bytes) -> int:
    """When a carried message was first stored, by the first CARRY_HEAD_BYTES of the record's payload."""
    return _CARRY.unpack_from(payload)[0]
