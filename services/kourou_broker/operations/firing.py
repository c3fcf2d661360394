"""Delayed messages whose time has come enter a queue of their topic, where consumers find them.

The copy in the queue and the record that ends the timer are in one frame of the log, so a message fires once, whatever
crashes. Only what is durable fires. A million at a time fire in small portions, no faster than the disk takes them.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from itertools import groupby

import structlog

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.errors import Dropped
from kourou_broker.log.log import Log
from kourou_broker.log.section import MESSAGE_ROW
from kourou_broker.operations.held_carrying import HeldMessage
from kourou_broker.operations.journal import Journal, Stored
from kourou_broker.operations.section_reader import SectionReader, StoredMessage
from kourou_broker.operations.traffic import Traffic
from kourou_broker.state import State, records
from kourou_broker.state.timers import Timer
from kourou_service.clock import Clock
from kourou_service.refusal import Refused

_logger = structlog.stdlib.get_logger(__name__)

_A_TURN = 128
_BYTES_A_TURN = 512 * 1024
_READ_TOGETHER = 1024
"""What lies in one section is read at one time, if it is among so many that are due."""
_READ_BYTES = 4 * 1024 * 1024
_MOST_WAITING_BYTES = 1024 * 1024
"""Not faster than the disk takes it: else copies would pile up in memory, and before what others send."""
_WALKED_A_TURN = 1024
_RETRY_S = 1.0
_LOOK_S = 1.0
"""The wall clock may jump: timers are looked at again after so long."""

_Found = tuple[Timer, StoredMessage]


class Firing:
    def __init__(
        self, state: State, log: Log, journal: Journal, reader: SectionReader, traffic: Traffic, clock: Clock
    ) -> None:
        self._state = state
        self._log = log
        self._journal = journal
        self._reader = reader
        self._traffic = traffic
        self._clock = clock
        self._news = asyncio.Event()
        self._waits_until_ms: int | None = None
        self._last_topic = 0
        self._unreadable: dict[int, Timer] = {}
        """By topic, the last of those that could not be read just now: what is due behind it has its turn."""
        self._last_lag_ms = 0
        self.refused_reason = ""
        """Why what is due cannot be stored; empty when it can."""

    @property
    def lag_ms(self) -> int:
        """How late the last messages fired, or how long the first one waits that should have fired."""
        first_ms = self._first_due_ms()
        overdue_ms = self._clock.now_ms() - first_ms if first_ms is not None else 0
        return max(overdue_ms, self._last_lag_ms)

    def expect(self, due_ms: int) -> None:
        """There is a new timer."""
        if self._waits_until_ms is None or due_ms < self._waits_until_ms:
            self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._step()
            except Refused as refused:
                if self.refused_reason != refused.message:
                    _logger.warning("delayed messages cannot be stored; it is tried again", reason=refused.message)
                self.refused_reason = refused.message
                await asyncio.sleep(_RETRY_S)
            except Exception:
                _logger.exception("delayed messages could not be stored; it is tried again")
                await asyncio.sleep(_RETRY_S)

    async def below(self, position: int) -> AsyncIterator[HeldMessage]:
        """The delayed messages that lie below a log position. What comes meanwhile lies above."""
        for topic in list(self._state.timers):
            last: Timer | None = None
            while (timers := self._state.timers.get(topic)) and (some := timers.following(last, _WALKED_A_TURN)):
                last = some[-1]
                for timer in some:
                    if timer.place.position < position:
                        yield HeldMessage(definition_pb2.DELAY, topic, timer.due_ms, timer.origin, timer.place)
                await asyncio.sleep(0)

    async def _step(self) -> None:
        """Waits for the next timer, or fires some."""
        due_ms, now_ms = self._first_due_ms(), self._clock.now_ms()
        if due_ms is None or due_ms > now_ms:
            await self._wait(due_ms, now_ms)
            return
        topic = self._last_topic = self._next_topic(now_ms)
        due = self._state.timers[topic].due(now_ms, _READ_TOGETHER, self._unreadable.pop(topic, None))
        durable = [timer for timer in due if timer.place.position < self._log.durable_position]
        if not durable:
            await self._journal.durable()
        readable, found = await self._read(topic, durable)
        for portion in _portions(found, min(_BYTES_A_TURN, self._journal.max_call_bytes)):
            await asyncio.sleep(0)
            self._fire(topic, portion)
            self.refused_reason = ""
            if self._journal.waiting_bytes > _MOST_WAITING_BYTES:
                await self._journal.durable()
        if not readable:
            if not found:
                self._unreadable[topic] = due[-1]
            await asyncio.sleep(_RETRY_S)

    def _first_due_ms(self) -> int | None:
        dues = (timers.first_due_ms for timers in self._state.timers.values())
        return min((due_ms for due_ms in dues if due_ms is not None), default=None)

    def _next_topic(self, now_ms: int) -> int:
        """By turns, of those for which something is due: one with a million does not hold up the others."""
        topics = [
            topic
            for topic, timers in self._state.timers.items()
            if timers.first_due_ms is not None and timers.first_due_ms <= now_ms
        ]
        return min(topics, key=lambda topic: (topic <= self._last_topic, topic))

    async def _wait(self, due_ms: int | None, now_ms: int) -> None:
        self._news.clear()
        self._waits_until_ms = due_ms
        with suppress(TimeoutError):
            async with asyncio.timeout(None if due_ms is None else min((due_ms - now_ms) / 1000, _LOOK_S)):
                await self._news.wait()
        self._waits_until_ms = None

    async def _read(self, topic: int, timers: Sequence[Timer]) -> tuple[bool, list[_Found]]:
        """The messages, or the first part of what would be too many bytes, in the order of their due times.

        False before them if others could not be read.
        """
        found: list[_Found] = []
        readable = True
        size_bytes = 0
        by_section = groupby(sorted(timers, key=_position), _position)
        for position, of_section in ((position, list(group)) for position, group in by_section):
            try:
                messages = await self._reader.held_all(position, [timer.place.index for timer in of_section])
            except Dropped:
                messages = []
            except Exception:  # a bad spot of the disk, usually: it must not hold up what lies elsewhere
                _logger.exception("delayed messages cannot be read; it is tried again", position=position)
                readable = False
                continue
            if not messages:
                self._missing(topic, of_section)
            found += zip(of_section, messages, strict=False)
            size_bytes += sum(len(message.head) + len(message.tail) for message in messages)
            if size_bytes > _READ_BYTES:
                break
        return readable, sorted(found, key=_due_ms)

    def _fire(self, topic_id: int, found: list[_Found]) -> None:
        """Stores what is still there. Raises Refused, and then nothing is."""
        topic, timers = self._state.topics_by_id.get(topic_id), self._state.timers.get(topic_id)
        if topic is None or timers is None:
            return
        found = [each for each in found if timers.find(each[0].due_ms, each[0].origin) is not None]
        if not found:
            return
        self._journal.store(
            topic,
            definition_pb2.DELAY,
            [MESSAGE_ROW.pack(len(message.head), len(message.tail), message.tag_hash) for _, message in found],
            [message.head + message.tail for _, message in found],
            _nobody_waits,
        )
        self._journal.emit(records.fired(topic_id, [(timer.due_ms, timer.origin) for timer, _ in found]))
        self._traffic.of_delays(topic_id).fired += len(found)
        self._last_lag_ms = max(0, self._clock.now_ms() - found[0][0].due_ms)

    def _missing(self, topic: int, timers: Sequence[Timer]) -> None:
        """Carried to another place while it was read; or else a repair of the log has cut it out, and it is lost."""
        known = self._state.timers.get(topic)
        lost = [timer for timer in timers if known is not None and known.find(timer.due_ms, timer.origin) == timer]
        if lost:
            _logger.error(
                "delayed messages are missing in the log", position=lost[0].place.position, messages=len(lost)
            )
            self._journal.emit(records.fired(topic, [(timer.due_ms, timer.origin) for timer in lost]))


def _position(timer: Timer) -> int:
    return timer.place.position


def _due_ms(found: _Found) -> int:
    return found[0].due_ms


def _portions(found: Sequence[_Found], most_bytes: int) -> Iterator[list[_Found]]:
    """For one turn each."""
    portion: list[_Found] = []
    size_bytes = 0
    for each in found:
        length = len(each[1].head) + len(each[1].tail)
        if portion and (len(portion) == _A_TURN or size_bytes + length > most_bytes):
            yield portion
            portion, size_bytes = [], 0
        portion.append(each)
        size_bytes += length
    if portion:
        yield portion


def _nobody_waits(_where: Stored | Refused) -> None: ...
