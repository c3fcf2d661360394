"""Check-back: producers are asked about transactions that stay open, and those that nobody ends are rolled back.

Which transaction comes up when is kept beside the state, and made anew from it at the start. How often one was asked
about is a record, so a restart gives nobody more time.
"""

import asyncio
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import structlog

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2
from kourou_broker.operations.clients import Client, Clients
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.message import digest, join
from kourou_broker.operations.section_reader import SectionReader, StoredMessage
from kourou_broker.operations.slices import in_slices
from kourou_broker.operations.transactions import Limits, Transactions
from kourou_broker.state import State, records
from kourou_broker.state.half_messages import HalfMessage, TransactionId
from kourou_service.clock import Clock

_logger = structlog.stdlib.get_logger(__name__)
_AT_A_TIME = 64
"""Transactions; then producers get some time to answer."""
_PAUSE_S = 0.1
_LOOK_FOR_PRODUCERS_S = 1.0
_STARTING_MS = 1000
"""A producer that came is not asked sooner: the official Python client drops a question while it is starting."""
_LONGEST_WAIT_S = 10.0
"""The wall clock may be set: then what was not due is."""
_COMPACT_FROM = 1024


class _Entry(NamedTuple):
    at_ms: int
    topic: int
    transaction: TransactionId


class TransactionChecks:
    def __init__(
        self,
        *,
        state: State,
        transactions: Transactions,
        clients: Clients,
        reader: SectionReader,
        journal: Journal,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._state = state
        self._transactions = transactions
        self._clients = clients
        self._reader = reader
        self._journal = journal
        self._clock = clock
        self._limits = limits
        self._news = asyncio.Event()
        self._without_producers: set[int] = set()
        """Topics with transactions that were due when none of their producers was there."""
        # One entry for each open transaction; that of an ended one leaves when it comes up, or when there are many.
        self._heap = [_Entry(self._due_ms(half), topic, id_) for topic, id_, half in state.half_messages]
        heapify(self._heap)
        self._compact_from = _COMPACT_FROM + 2 * len(self._heap)

    def watch(self, topic_id: int, transaction: TransactionId) -> None:
        """The transaction was begun."""
        half = self._state.half_messages.get(topic_id, transaction)
        if half is None:
            return
        if len(self._heap) > self._compact_from:
            self._heap = [entry for entry in self._heap if self._half(entry) is not None]
            heapify(self._heap)
            self._compact_from = _COMPACT_FROM + 2 * len(self._heap)
        self._push(self._due_ms(half), topic_id, transaction)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._until_due()
            try:
                await self._see_who_came()
                await self._check_some()
            except Exception:
                _logger.exception("open transactions could not be checked; it is tried again")
            await asyncio.sleep(_PAUSE_S)

    async def _until_due(self) -> None:
        self._news.clear()
        wait_s = (self._heap[0].at_ms - self._clock.now_ms()) / 1000 if self._heap else _LONGEST_WAIT_S
        if wait_s > 0:
            longest_s = _LOOK_FOR_PRODUCERS_S if self._without_producers else _LONGEST_WAIT_S
            try:
                async with asyncio.timeout(min(wait_s, longest_s)):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _see_who_came(self) -> None:
        """Where there is a producer again, what waited for one is due soon."""
        came = {topic for topic in self._without_producers if self._producers(topic)}
        self._without_producers = {
            topic for topic in self._without_producers - came if topic in self._state.topics_by_id
        }
        if came:
            soon_ms = self._clock.now_ms() + _STARTING_MS
            entries, self._heap = self._heap, []
            async for entry in in_slices(entries):
                if self._half(entry) is not None:
                    self._push(min(entry.at_ms, soon_ms) if entry.topic in came else entry.at_ms, *entry[1:])

    async def _check_some(self) -> None:
        now_ms = self._clock.now_ms()
        async for _ in in_slices(range(_AT_A_TIME)):
            if not self._heap or self._heap[0].at_ms > now_ms or not self._journal.has_room:
                return
            entry = heappop(self._heap)
            half = self._half(entry)
            if half is None:
                continue
            next_ms = now_ms + self._limits.interval_ms
            try:
                next_ms = await self._check(entry, half, now_ms)
            finally:
                if self._half(entry) is half:
                    self._push(next_ms, entry.topic, entry.transaction)

    async def _check(self, entry: _Entry, half: HalfMessage, now_ms: int) -> int:
        """-> when it comes up again, if it is still open."""
        limits = self._limits
        if now_ms >= half.stored_ms + limits.max_age_ms or (
            half.checks >= limits.max_checks and now_ms >= half.next_check_ms
        ):
            self._give_up(entry, half)
        elif now_ms < half.next_check_ms:
            return self._due_ms(half)
        elif self._producers(entry.topic):
            await self._ask(entry, half, now_ms)
            return self._due_ms(half) if half.next_check_ms > now_ms else now_ms + 1000
        else:
            self._without_producers.add(entry.topic)
        return min(now_ms + limits.interval_ms, half.stored_ms + limits.max_age_ms)

    async def _ask(self, entry: _Entry, half: HalfMessage, now_ms: int) -> None:
        """One of the topic's producers, each time another one; it counts when the command can leave."""
        message = await self._reader.half(half)
        if message is None or self._half(entry) is not half:
            return
        producers = self._producers(entry.topic)
        if not producers:
            return
        producer = producers[(hash(entry.transaction) + half.checks) % len(producers)]
        if producer.command(_question(message, entry.transaction)):
            next_ms = now_ms + self._limits.interval_ms
            self._journal.emit(
                records.transaction_checked(entry.topic, [entry.transaction], producer.id, next_ms),
            )

    def _give_up(self, entry: _Entry, half: HalfMessage) -> None:
        self._transactions.give_up(entry.topic, entry.transaction)
        _logger.warning(
            "a transaction is rolled back, since no producer said what became of it",
            topic=str(self._state.topics_by_id[entry.topic].name),
            transaction=str(entry.transaction),
            message_id=half.message_id,
            checks=half.checks,
            age_s=(self._clock.now_ms() - half.stored_ms) // 1000,
        )

    def _half(self, entry: _Entry) -> HalfMessage | None:
        return self._state.half_messages.get(entry.topic, entry.transaction)

    def _producers(self, topic_id: int) -> list[Client]:
        """The live ones."""
        topic = self._state.topics_by_id.get(topic_id)
        return self._clients.producers(topic.name) if topic is not None else []

    def _due_ms(self, half: HalfMessage) -> int:
        return min(half.next_check_ms, half.stored_ms + self._limits.max_age_ms)

    def _push(self, at_ms: int, topic: int, transaction: TransactionId) -> None:
        entry = _Entry(at_ms, topic, transaction)
        heappush(self._heap, entry)
        if self._heap[0] is entry:
            self._news.set()


def _question(stored: StoredMessage, transaction: TransactionId) -> service_pb2.TelemetryCommand:
    """The whole message goes along, as clients want it: with a digest, and when it was stored."""
    sent = definition_pb2.SystemProperties.FromString(stored.tail)
    if not sent.body_digest.checksum:
        sent.body_digest.CopyFrom(digest(stored.head))
    sent.store_timestamp.FromMilliseconds(stored.stored_ms)
    message = definition_pb2.Message.FromString(join(stored.head, sent.SerializeToString()))
    command = service_pb2.RecoverOrphanedTransactionCommand(message=message, transaction_id=str(transaction))
    return service_pb2.TelemetryCommand(recover_orphaned_transaction_command=command)
