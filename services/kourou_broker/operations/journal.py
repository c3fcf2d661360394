"""From operations to the log: what meets in one turn of the loop becomes one frame.

Records take effect on the state when they are emitted, so that the next operation of the same turn sees them; messages
and acks are gathered and emitted when the turn ends, one section for each topic or progress, since sections are what
later costs. Whoever must not answer before the disk has it asks for a callback.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.errors import LogError
from kourou_broker.log.log import Log
from kourou_broker.log.section import MESSAGE_ROW, QUEUED_KINDS, Section
from kourou_broker.operations.errors import topic_not_found
from kourou_broker.operations.traffic import Traffic
from kourou_broker.state import Fate, Kind, State, records
from kourou_broker.state.definitions import Queue, Topic
from kourou_broker.state.progress import Progress
from kourou_service.clock import Clock
from kourou_service.refusal import Refused

_MAX_FRAME_BYTES = 8 * 1024 * 1024
_MAX_SECTIONS = 32_768
"""What a frame takes before it is sealed within the turn."""
_NOTE_WAITS_S = 0.001
_CARRIES = frozenset((Kind.CARRY, Kind.HELD_CARRIED))


class Stored(NamedTuple):
    """Where messages of one call were put: consecutive offsets of a queue, consecutive places of a section.

    Held messages have no offsets.
    """

    queue: int
    base: int
    position: int
    place: int
    recall_handles: tuple[str, ...] = ()
    """One for each message, if they are delayed."""
    transaction_id: str = ""
    """Of a half message."""
    each: "tuple[Stored, ...]" = ()
    """One for each message, if they do not lie together: some were sent before."""


OnStored = Callable[[Stored | Refused], None]


class _Gathered:
    """What one queue receives in this turn."""

    __slots__ = ("bodies", "callbacks", "queue", "rows", "type")

    def __init__(self, queue: Queue, type_: int) -> None:
        self.queue = queue
        self.type = type_
        self.rows: list[bytes] = []
        self.bodies: list[bytes] = []
        self.callbacks: list[tuple[int, OnStored]] = []


class _GatheredBatch(NamedTuple):
    """A batch that some queue of the topic receives in this turn, as a section of its own."""

    topic: Topic
    payload: bytes
    sizes: Sequence[int]
    """Of its messages' bodies."""
    on_stored: OnStored


class _Acks:
    """What is settled of one queue in this turn."""

    __slots__ = ("offsets", "runs")

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.runs: list[range] = []

    def add(self, offsets: Sequence[int]) -> None:
        if isinstance(offsets, range):
            self.runs.append(offsets)
        else:
            self.offsets += offsets


class _Held:
    """What is held for one topic in this turn."""

    __slots__ = ("bodies", "callbacks", "rows", "topic", "type", "whens")

    def __init__(self, topic: Topic, type_: int) -> None:
        self.topic = topic
        self.type = type_
        self.whens: list[int] = []
        self.rows: list[bytes] = []
        self.bodies: list[bytes] = []
        self.callbacks: list[tuple[int, OnStored]] = []


class _Waiting(NamedTuple):
    """What happens when the disk has a frame."""

    end: int
    stored: list[tuple[OnStored, Stored]]
    callbacks: list[Callable[[], None]]
    topics: list[int]
    settled: list[tuple[Progress, Sequence[int]]]


class Journal:
    def __init__(self, state: State, log: Log, clock: Clock, traffic: Traffic, *, max_waiting_bytes: int) -> None:
        self._state = state
        self._log = log
        self._clock = clock
        self._traffic = traffic
        self._max_waiting_bytes = max_waiting_bytes
        # The other half of a segment is for the records that meet the messages in a frame.
        self._max_call_bytes = log.segment_bytes // 2
        self._max_frame_bytes = min(_MAX_FRAME_BYTES, self._max_call_bytes)
        self._loop = asyncio.get_running_loop()
        self._sealing = False
        self._sealing_later: asyncio.TimerHandle | None = None
        self._sections: list[Section] = []
        self._freeing = False
        self._gathered: dict[tuple[int, int, int], _Gathered] = {}
        self._held: dict[tuple[int, int], _Held] = {}
        self._gathered_bytes = 0
        self._batches: list[_GatheredBatch] = []
        self._acks: dict[tuple[Progress, Fate], _Acks] = {}
        self._settled: list[tuple[Progress, Sequence[int]]] = []
        self._callbacks: list[Callable[[], None]] = []
        self._waiting: deque[_Waiting] = deque()
        self._rotation: dict[int, int] = {}
        self.on_messages: Callable[[int], None] = lambda _topic_id: None
        """Called with the id of each topic whose new messages can be delivered now."""
        self.on_settled: Callable[[Progress, Sequence[int]], None] = lambda _progress, _offsets: None
        """Called with the offsets of settled messages when that is on the disk."""
        log.on_durable = self._durable

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the disk does not have yet."""
        return self._log.pending_bytes + self._gathered_bytes

    @property
    def all_durable(self) -> bool:
        """Whether all that was recorded up to now is on the disk."""
        return not (self._waiting or self._sections or self._acks)

    @property
    def max_call_bytes(self) -> int:
        """Of messages that are stored together."""
        return self._max_call_bytes

    @property
    def has_room(self) -> bool:
        """False when even the space that is kept for records other than messages is used up."""
        return self._log.takes_records

    def require_room(self) -> None:
        """Raises Refused when there is none."""
        if not self.has_room:
            raise Refused(
                definition_pb2.INTERNAL_SERVER_ERROR,
                "the broker's disk is full: nothing can be recorded until space is free again",
            )

    def emit(self, *sections: Section, freeing: bool = False) -> None:
        """Records something; it holds from now on, and survives a crash when the turn's frame is on the disk.

        What is emitted at once survives as a whole or not at all. A record that leads to free space may use the last
        of it.
        """
        self._freeing |= freeing
        self._record_all(sections)
        self._seal_soon()

    def note(self, *sections: Section) -> None:
        """The same for what nobody waits for: it is written with what comes next, or by itself a moment later."""
        self._record_all(sections)
        if not self._sealing and self._sealing_later is None:
            self._sealing_later = self._loop.call_later(_NOTE_WAITS_S, self._seal_soon)

    def carry(self, section: Section) -> None:
        """Records a CARRY or HELD_CARRIED section, with effect at the end of the turn: it has no position before."""
        self._make_room(len(section.payload))
        self._freeing = True
        self._sections.append(section)
        self._seal_soon()

    def store(
        self,
        topic: Topic,
        type_: int,
        rows: list[bytes],
        bodies: list[bytes],
        on_stored: OnStored,
        queue: int = -1,
    ) -> None:
        """Adds messages to a queue, of the broker's choice if none is named; on_stored is called when they are durable.

        Raises Refused when messages cannot be taken now; then none is.
        """
        size = sum(map(len, bodies))
        self.admit(size)
        self._make_room(size)
        gathered = self._gathered.get((topic.id, type_, queue))
        if gathered is None:
            into = topic.queue(queue) if queue >= 0 else self._next_queue(topic)
            gathered = self._gathered[topic.id, type_, queue] = _Gathered(into, type_)
        gathered.callbacks.append((len(gathered.rows), on_stored))
        gathered.rows += rows
        gathered.bodies += bodies
        self._seal_soon()

    def store_batch(self, topic: Topic, payload: bytes, sizes: Sequence[int], on_stored: OnStored) -> None:
        """Adds the messages of a batch (its section's payload) to a queue of the broker's choice, as `store` does."""
        self.admit(len(payload))
        self._make_room(len(payload))
        self._batches.append(_GatheredBatch(topic, payload, sizes, on_stored))
        self._seal_soon()

    def hold(
        self,
        topic: Topic,
        type_: int,
        whens: Sequence[int],
        rows: list[bytes],
        bodies: list[bytes],
        on_stored: OnStored,
    ) -> None:
        """Keeps messages that no consumer may see yet, see records.held; on_stored is called when they are durable.

        They take effect at the end of the turn: they have no position before. Raises Refused as `store` does.
        """
        size = sum(map(len, bodies))
        self.admit(size)
        self._make_room(size)
        held = self._held.get((topic.id, type_))
        if held is None:
            held = self._held[topic.id, type_] = _Held(topic, type_)
        held.callbacks.append((len(held.rows), on_stored))
        held.whens += whens
        held.rows += rows
        held.bodies += bodies
        self._seal_soon()

    def settle(self, progress: Progress, offsets: Sequence[int], fate: Fate) -> None:
        """Settles messages for a group; it takes effect at the end of the turn."""
        acks = self._acks.get((progress, fate))
        if acks is None:
            acks = self._acks[progress, fate] = _Acks()
        acks.add(offsets)
        self._seal_soon()

    def settle_now(self, progress: Progress, offsets: list[int], fate: Fate) -> None:
        """The same, with effect at once: for those who go on reading the progress in this turn."""
        self._settled.append((progress, offsets))
        self.emit(records.ack(progress.group, progress.topic, progress.queue, offsets, fate))

    def set_offset(self, group: int, topic: int, queue: int, offset: int) -> None:
        """Sets a group's progress; what was settled before takes effect before, and so cannot settle anything after."""
        self._emit_acks()
        self.emit(records.offset(group, topic, queue, offset))

    def when_durable(self, callback: Callable[[], None]) -> None:
        """Calls back when all that was recorded up to now is on the disk."""
        self._callbacks.append(callback)
        self._seal_soon()

    def forget(self, topic_id: int) -> None:
        """The topic was deleted."""
        self._rotation.pop(topic_id, None)

    async def durable(self) -> None:
        """Returns when all that was recorded up to now is on the disk."""
        done = self._loop.create_future()

        def resolve() -> None:
            if not done.done():  # it is cancelled when its caller is
                done.set_result(None)

        self.when_durable(resolve)
        await done

    def admit(self, size: int) -> None:
        """Raises Refused when messages of so many bytes cannot be taken now."""
        if size > self._max_call_bytes:
            raise Refused(
                definition_pb2.PAYLOAD_TOO_LARGE,
                f"{size} bytes in one request; with segments of {self._log.segment_bytes} bytes this broker takes "
                f"{self._max_call_bytes}",
            )
        if not self._log.writable_messages:
            # This code says that nothing was stored, and sends clients to another broker.
            raise Refused(
                definition_pb2.FORBIDDEN,
                "the broker's disk is nearly full: new messages are refused until space is free again",
            )
        if self.waiting_bytes + size > self._max_waiting_bytes and self.waiting_bytes:
            raise Refused(
                definition_pb2.TOO_MANY_REQUESTS,
                f"{self.waiting_bytes} bytes wait for the disk, {self._max_waiting_bytes} may: send more slowly",
            )

    def _make_room(self, size: int) -> None:
        """Begins a new frame if so many bytes of messages are too many for the one that is gathered."""
        if self._gathered_bytes and self._gathered_bytes + size > self._max_frame_bytes:
            self._seal()  # before, not after: what the caller records next goes into the frame of these messages
        self._gathered_bytes += size

    def _next_queue(self, topic: Topic) -> Queue:
        turn = self._rotation.get(topic.id, -1) + 1
        self._rotation[topic.id] = turn
        return topic.queues[turn % len(topic.queues)]

    def _record_all(self, sections: Sequence[Section]) -> None:
        for section in sections:
            self._record(section)
        if len(self._sections) >= _MAX_SECTIONS:
            self._seal()

    def _record(self, section: Section) -> None:
        self._state.apply(section, 0)
        self._sections.append(section)

    def _seal_soon(self) -> None:
        if not self._sealing:
            self._sealing = True
            self._loop.call_soon(self._seal)

    def _seal(self) -> None:
        """Ends the turn: everything gathered goes into one frame."""
        self._sealing = False
        if self._sealing_later is not None:
            self._sealing_later.cancel()
            self._sealing_later = None
        stored = self._emit_messages()
        held = self._add_held()
        self._emit_acks()
        sections, self._sections = self._sections, []
        callbacks, self._callbacks = self._callbacks, []
        settled, self._settled = self._settled, []
        freeing, self._freeing = self._freeing, False
        if not sections:
            # nothing to write, but earlier frames may still be on their way: answers keep their order
            if self._waiting:
                self._waiting.append(_Waiting(self._waiting[-1].end, [], callbacks, [], []))
            else:
                for callback in callbacks:
                    callback()
            return
        try:
            appended = self._log.append(sections, self._clock.now_ms(), freeing=freeing)
        except LogError as problem:
            # The state has these records and the log never will: only a restart brings both together again.
            if self._log.on_failure is not None:
                self._log.on_failure(problem)
            raise
        placed: list[tuple[OnStored, Stored]] = []
        topics: list[int] = []
        for section, position in zip(sections, appended.section_positions, strict=True):
            if section.kind in _CARRIES:
                self._state.apply(section, position)
            elif section.kind == Kind.HELD:
                self._state.apply(section, position)
                for index, on_stored in held[section.topic, section.type]:
                    placed.append((on_stored, Stored(-1, -1, position, index)))
            elif section.kind in QUEUED_KINDS:
                topics.append(section.topic)
                for index, on_stored in stored[section.topic, section.queue, section.base]:
                    placed.append((on_stored, Stored(section.queue, section.base + index, position, index)))
        self._waiting.append(_Waiting(appended.end, placed, callbacks, topics, settled))

    def _emit_messages(self) -> dict[tuple[int, int, int], list[tuple[int, OnStored]]]:
        """-> who waits for the messages of a section, by its topic, queue and base."""
        stored: dict[tuple[int, int, int], list[tuple[int, OnStored]]] = {}
        for gathered in self._gathered.values():
            queue = gathered.queue
            if self._state.topics_by_id.get(queue.topic.id) is not queue.topic:
                for _index, on_stored in gathered.callbacks:
                    on_stored(topic_not_found(queue.topic.name))
                continue
            section = records.messages(
                gathered.type, queue.topic.id, queue.id, queue.next_offset, gathered.rows, gathered.bodies
            )
            stored[section.topic, section.queue, section.base] = gathered.callbacks
            self._record(section)
            self._count(section, [*map(len, gathered.bodies)], len(section.payload) - section.count * MESSAGE_ROW.size)
        for topic, payload, sizes, on_stored in self._batches:
            if self._state.topics_by_id.get(topic.id) is not topic:
                on_stored(topic_not_found(topic.name))
                continue
            queue = self._next_queue(topic)
            section = records.batch(topic.type, topic.id, queue.id, queue.next_offset, len(sizes), payload)
            stored[section.topic, section.queue, section.base] = [(0, on_stored)]
            self._record(section)
            self._count(section, sizes, len(payload))
        self._gathered = {}
        self._batches = []
        self._gathered_bytes = 0
        return stored

    def _add_held(self) -> dict[tuple[int, int], list[tuple[int, OnStored]]]:
        """-> who waits for the held messages of a section, by its topic and type."""
        waiting: dict[tuple[int, int], list[tuple[int, OnStored]]] = {}
        for key, held in self._held.items():
            if self._state.topics_by_id.get(held.topic.id) is not held.topic:
                for _index, on_stored in held.callbacks:
                    on_stored(topic_not_found(held.topic.name))
                continue
            stored_ms = [self._clock.now_ms()] * len(held.rows)
            self._sections.append(records.held(held.type, held.topic.id, held.whens, stored_ms, held.rows, held.bodies))
            waiting[key] = held.callbacks
        self._held = {}
        return waiting

    def _count(self, section: Section, sizes: Sequence[int], size_bytes: int) -> None:
        self._traffic.stored += section.count
        self._traffic.of_topic(section.topic).add(sizes, size_bytes)

    def _emit_acks(self) -> None:
        for (progress, fate), acks in self._acks.items():
            before = len(progress.pending)
            for offsets in (*acks.runs, *([acks.offsets] if acks.offsets else ())):
                self._record(records.ack(progress.group, progress.topic, progress.queue, offsets, fate))
                self._settled.append((progress, offsets))
            settled = before - len(progress.pending)  # two calls may have settled the same in one turn
            if settled and fate == Fate.CONSUMED:
                self._traffic.of_group(progress.group, progress.topic).acknowledged += settled
        self._acks = {}

    def _durable(self, position: int) -> None:
        waiting = self._waiting
        while waiting and waiting[0].end <= position:
            frame = waiting.popleft()
            for on_stored, where in frame.stored:
                on_stored(where)
            for callback in frame.callbacks:
                callback()
            for progress, offsets in frame.settled:
                self.on_settled(progress, offsets)
            for topic in frame.topics:
                self.on_messages(topic)
