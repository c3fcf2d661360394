"""The state as bytes and back: primary data, since segments are dropped on its word.

magic (8 bytes), CRC-32C of the rest (4), format (4), then a kourou.log.v1.Snapshot.
"""

import struct
from itertools import groupby, islice, repeat

from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.log.checksum import value
from kourou_broker.state import records
from kourou_broker.state.definitions import Carried
from kourou_broker.state.lite import FIRST_LITE_QUEUE
from kourou_broker.state.progress import Progress
from kourou_broker.state.records import Lease
from kourou_broker.state.resent import Resent
from kourou_broker.state.state import State
from kourou_broker.state.timers import Timers

_HEAD = struct.Struct("<8sII")
_MAGIC = b"KOUROUSN"
_FORMAT = 1
_TIMERS_AT_A_TIME = 10_000


class DamagedSnapshot(Exception):
    """The bytes are not a whole snapshot, or one of a newer format."""


def encode(state: State, position: int) -> bytes:
    """The state after all records below the log position."""
    snapshot = record_pb2.Snapshot(
        position=position,
        next_topic_id=state.next_topic_id,
        next_group_id=state.next_group_id,
        topics=[*(topic.definition for topic in state.topics.values()), *state.topic_tombstones.values()],
        groups=[*(group.definition for group in state.groups.values()), *state.group_tombstones.values()],
        broker=state.broker,
        queues=[
            record_pb2.QueueState(
                topic=topic.id,
                queue=queue.id,
                first_offset=queue.first_offset,
                next_offset=queue.next_offset,
                carried=[
                    record_pb2.CarriedMessage(offset=at, position=copy.position, length=copy.length)
                    for at, copy in queue.carried.items()
                ],
                resent_below=queue.resent.below if queue.resent is not None else 0,
                resent=sorted(queue.resent.offsets) if queue.resent is not None else (),
            )
            for topic in state.topics.values()
            for queue in topic.all_queues()
        ],
        progress=[_progress_out(progress) for progress in state.progress.values()],
        timers=_timers_out(state),
        lite_topics=[
            record_pb2.LiteTopic(
                topic=topic.id, name=lite.name, queue=lite.queue.id, last_stored_ms=lite.last_stored_ms
            )
            for topic in state.topics.values()
            if topic.lite is not None
            for lite in topic.lite.by_name.values()
        ],
        half_messages=state.half_messages.to_snapshot(),
    )
    body = struct.pack("<I", _FORMAT) + snapshot.SerializeToString()
    return struct.pack("<8sI", _MAGIC, value(body)) + body


def decode(data: bytes) -> tuple[State, int]:
    """-> the state and the log position from which records go on. Raises DamagedSnapshot."""
    if len(data) < _HEAD.size:
        raise DamagedSnapshot("it is too short")
    magic, crc, format_ = _HEAD.unpack_from(data)
    if magic != _MAGIC or value(data[12:]) != crc:
        raise DamagedSnapshot("its checksum is wrong")
    if format_ != _FORMAT:
        raise DamagedSnapshot(f"its format {format_} is newer than this version's {_FORMAT}")
    snapshot = record_pb2.Snapshot.FromString(data[_HEAD.size :])
    state = State()
    for topic in snapshot.topics:
        state.apply(records.topic(topic), 0)
    for group in snapshot.groups:
        state.apply(records.group(group), 0)
    state.broker = snapshot.broker
    state.next_topic_id, state.next_group_id = snapshot.next_topic_id, snapshot.next_group_id
    for saved in snapshot.queues:
        topic = state.topics_by_id[saved.topic]
        if topic.lite is not None and saved.queue >= FIRST_LITE_QUEUE:
            state.add_lite_queues(topic, topic.lite, saved.queue)
        queue = topic.queue(saved.queue)
        queue.first_offset, queue.next_offset = saved.first_offset, saved.next_offset
        queue.carried = {copy.offset: Carried(copy.position, copy.length) for copy in saved.carried}
        if saved.resent_below or saved.resent:
            queue.resent = Resent(saved.resent_below, saved.resent)
    for lite in snapshot.lite_topics:
        state.apply(records.lite_topic(lite), 0)
    for saved in snapshot.progress:
        progress = Progress(saved.group, saved.topic, saved.queue, saved.high)
        progress.restore(_lease_in(lease) for lease in saved.leases)
        state.progress[saved.group, saved.topic, saved.queue] = progress
    _timers_in(state, snapshot.timers)
    for saved in snapshot.half_messages:
        state.half_messages.restore(saved)
    return state, snapshot.position


def _timers_out(state: State) -> record_pb2.Timers:
    saved = record_pb2.Timers()
    columns = (saved.due_ms, saved.origin_positions, saved.origin_indexes, saved.positions, saved.indexes)
    for topic, timers in state.timers.items():
        saved.topics.extend(repeat(topic, len(timers)))
        rows = timers.numbers()
        while some := list(islice(rows, _TIMERS_AT_A_TIME)):
            for column, numbers in zip(columns, zip(*some, strict=True), strict=True):
                column.extend(numbers)
    return saved


def _timers_in(state: State, saved: record_pb2.Timers) -> None:
    columns = (saved.due_ms, saved.origin_positions, saved.origin_indexes, saved.positions, saved.indexes)
    rows = zip(*columns, strict=True)
    for topic, of_topic in groupby(saved.topics):
        state.timers[topic] = Timers.of_numbers(islice(rows, sum(1 for _ in of_topic)))


def _progress_out(progress: Progress) -> record_pb2.ProgressState:
    return record_pb2.ProgressState(
        group=progress.group,
        topic=progress.topic,
        queue=progress.queue,
        high=progress.high,
        leases=[
            record_pb2.LeaseState(
                incarnation=lease.incarnation,
                number=lease.number,
                deadline_ms=lease.deadline_ms,
                attempt=lease.attempt,
                auto_renew=lease.auto_renew,
                client_id=lease.client_id,
                offsets=offsets,
            )
            for lease, offsets in progress.leases()
        ],
    )


def _lease_in(saved: record_pb2.LeaseState) -> Lease:
    return Lease(
        saved.incarnation,
        saved.number,
        saved.deadline_ms,
        saved.attempt,
        saved.auto_renew,
        saved.client_id,
        list(saved.offsets),
    )
