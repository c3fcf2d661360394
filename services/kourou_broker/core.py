"""A broker without its doors: log, state and operations, wired together. Real or simulated, it is the same."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.frame import Frame
from kourou_broker.log.log import Log
from kourou_broker.log.medium import Medium
from kourou_broker.log.options import LogOptions
from kourou_broker.log.sealing import drop_derived
from kourou_broker.log.worker import Worker, run_in
from kourou_broker.operations.assignment import Assignments
from kourou_broker.operations.backlog import Backlogs
from kourou_broker.operations.backup import Backups
from kourou_broker.operations.clients import Clients
from kourou_broker.operations.commands import Commands
from kourou_broker.operations.creation_times import CreationTimes
from kourou_broker.operations.dead_letter import DeadLetters
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.delay import Delaying
from kourou_broker.operations.delivery import Deliveries, InvisibleTimes
from kourou_broker.operations.explaining import Explaining, Histories
from kourou_broker.operations.firing import Firing
from kourou_broker.operations.held_carrying import HeldCarrying
from kourou_broker.operations.indexing import Indexing
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.lending import Context, LeaseNumbers
from kourou_broker.operations.lite_subscriptions import LiteSubscriptions
from kourou_broker.operations.lite_topics import LiteStore
from kourou_broker.operations.offsets import Offsets
from kourou_broker.operations.placement import Placement
from kourou_broker.operations.places import Places
from kourou_broker.operations.pull import Pulling
from kourou_broker.operations.recall import Recalling
from kourou_broker.operations.recent_sends import RecentSends
from kourou_broker.operations.recovered_sends import RecoveredSends
from kourou_broker.operations.resending import Resending
from kourou_broker.operations.retention import Retention
from kourou_broker.operations.scrubbing import Scrubbing
from kourou_broker.operations.search import Lookup, Search
from kourou_broker.operations.section_reader import SectionReader
from kourou_broker.operations.send import Sending
from kourou_broker.operations.snapshots import Snapshots
from kourou_broker.operations.store_times import StoreTimes
from kourou_broker.operations.told_settings import ToldSettings
from kourou_broker.operations.traffic import Traffic
from kourou_broker.operations.transaction_checks import TransactionChecks
from kourou_broker.operations.transactions import Limits, Transactions
from kourou_broker.operations.waiting import Waiting
from kourou_broker.settings import BrokerSettings
from kourou_broker.state import fold
from kourou_broker.state.definitions import Name
from kourou_service.clock import Clock

_logger = structlog.stdlib.get_logger("kourou_broker")
_PROGRESS_EVERY_MS = 1000
_CLOSE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a broker needs of the world, and what a simulation replaces."""

    clock: Clock
    medium: Medium
    committer: Worker
    """Writes and syncs the log; nothing else may wait in it."""
    reader: Worker
    background: Worker
    lookup: Lookup
    histories: Histories
    fold_to: Callable[[int], Awaitable[bytes]]
    """Makes the snapshot of a log position, outside of this process."""
    scrub: Callable[[int], Awaitable[str | None]]
    """Verifies the sealed segment at a base, outside of this process; says what is wrong with it."""
    index: Callable[[int], Awaitable[None]]
    """Builds the indexes of the sealed segment at a base that it lacks, outside of this process."""
    incarnation: int
    """Random, new at every start."""
    fatal: Callable[[BaseException], None]
    """The log cannot be written any more: the process must stop."""


class BrokerCore:
    """Built in the running loop: recovery happens here, and takes its time. Raises LogError and OSError."""

    def __init__(self, settings: BrokerSettings, surroundings: Surroundings) -> None:
        clock, medium = surroundings.clock, surroundings.medium
        began_ms = clock.now_ms()
        state, position, faults = fold.newest(medium)
        for fault in faults:
            _logger.warning("a snapshot is passed over", fault=fault)

        window_ms = int(settings.dedup_window_s * 1000)
        recovered = RecoveredSends(
            from_ms=began_ms - window_ms, max_ids=settings.dedup_max_ids, whole_log=position == 0, now_ms=began_ms
        )

        def apply(frame: Frame) -> None:
            for section in frame.sections:
                state.apply(section, section.position)
            recovered.add(frame)

        self.medium = medium
        self.state = state
        self.log = Log.recover(
            medium,
            surroundings.committer,
            _log_options(settings),
            position,
            apply,
            _progress_log(clock),
            reader=surroundings.reader,
            background=surroundings.background,
        )
        self.recovery_ms = clock.now_ms() - began_ms
        self.log.on_failure = surroundings.fatal
        self.traffic = Traffic()
        self.journal = Journal(state, self.log, clock, self.traffic, max_waiting_bytes=settings.max_waiting_bytes)
        self.clients = Clients(
            silence_s=settings.client_silence_s,
            stream_grace_s=settings.client_stream_grace_s,
            max_clients=settings.max_clients,
        )
        self.commands = Commands(self.clients)
        self._told_settings = ToldSettings(state, self.clients, self.journal)
        self.creation_times = CreationTimes()
        self.definitions = Definitions(state, self.journal, clock, auto_create_groups=settings.auto_create_groups)
        self.recent_sends = _recent_sends(settings)
        if self.recent_sends is not None:
            recovered.give(self.recent_sends, state.topics_by_id, settings.name)
        self.sending = Sending(state, self.definitions, self.journal, clock, self.traffic, self.recent_sends)
        placement = Placement(self.journal)
        self.sending.by_type[definition_pb2.FIFO] = placement.by_message_group
        self.sending.by_type[definition_pb2.PRIORITY] = placement.by_priority
        reader = SectionReader(self.log)
        self.lite_store = LiteStore(state, self.journal, reader, clock, max_lite_topics=settings.max_lite_topics)
        self.sending.by_type[definition_pb2.LITE] = self.lite_store.store
        self.pulling = Pulling(reader, self.traffic)
        self.offsets = Offsets(state, self.journal, self.log)
        limits = _transaction_limits(settings)
        self.transactions = Transactions(state, self.journal, reader, self.traffic, clock, limits)
        self.sending.by_type[definition_pb2.TRANSACTION] = self.transactions.begin
        self._transaction_checks = TransactionChecks(
            state=state,
            transactions=self.transactions,
            clients=self.clients,
            reader=reader,
            journal=self.journal,
            clock=clock,
            limits=limits,
        )
        places = Places(state, self.log, reader)
        self.search = Search(places, reader, surroundings.lookup)
        context = Context(
            state=state,
            journal=self.journal,
            reader=reader,
            dead_letters=DeadLetters(self.definitions, self.journal, self.traffic),
            clock=clock,
            numbers=LeaseNumbers(surroundings.incarnation),
            traffic=self.traffic,
            may_live=self.clients.may_live,
            begin=self.offsets.begin,
            max_pending=settings.max_pending_messages,
        )
        self.resending = Resending(state, self.journal, reader, self.offsets.begin)
        self.assignments = Assignments(self.clients, settings.name)
        times = InvisibleTimes(default_ms=settings.invisible_time_ms)
        self.deliveries = Deliveries(context, self.assignments, times)
        self.lite_subscriptions = LiteSubscriptions(
            state, self.journal, self.clients, self.deliveries.to_lite_group, self.deliveries.to_lite_groups
        )
        self.backlogs = Backlogs(
            state, self.deliveries, StoreTimes(self.log, reader), clock, max_pending=settings.max_pending_messages
        )
        self.explaining = Explaining(
            broker=settings.name,
            state=state,
            log=self.log,
            journal=self.journal,
            clients=self.clients,
            places=places,
            lookup=surroundings.lookup,
            histories=surroundings.histories,
            waiting=Waiting(state, self.clients, self.deliveries, clock, max_pending=settings.max_pending_messages),
        )
        self.snapshots = Snapshots(
            self.log,
            medium,
            every_bytes=settings.snapshot_every_bytes,
            fold_to=surroundings.fold_to,
            in_background=lambda work: run_in(surroundings.background, work),
        )
        self.held_carrying = HeldCarrying(self.journal, reader)
        self.firing = Firing(state, self.log, self.journal, reader, self.traffic, clock)
        self.recalling = Recalling(state, self.journal, reader)
        delaying = Delaying(
            self.journal, self.firing, self.traffic, settings.name, max_delay_days=settings.max_delay_days
        )
        self.sending.by_type[definition_pb2.DELAY] = delaying.store
        self._retention = self._build_retention(settings, clock, reader)
        self.backups = Backups(self.log, medium, surroundings.background)
        self.scrubbing = Scrubbing(self.log, surroundings.scrub, settings.scrub_interval_s)
        self.indexing = Indexing(
            self.log,
            index=surroundings.index,
            forget=lambda base: run_in(surroundings.background, lambda: drop_derived(medium, base)),
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._connect()

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        running = (
            self._retention.run(),
            self.scrubbing.run(),
            self.indexing.run(),
            self.explaining.prepare(),
            self.lite_store.run(),
            self.lite_subscriptions.run(),
            self._transaction_checks.run(),
            self.firing.run(),
        )
        self._tasks = [loop.create_task(background) for background in running]

    def end_polls(self) -> None:
        """Who waits for messages gets an empty answer: the broker stops."""
        self.deliveries.close()
        self.pulling.close()

    async def close(self) -> None:
        """Everything is on the disk, and nothing waits any more; what a full disk leaves out was not acknowledged."""
        for task in self._tasks:
            task.cancel()
        self.end_polls()
        self.clients.close()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self.journal.durable()
                await self.log.close()
        except TimeoutError:
            _logger.error("the disk took nothing more: what was not acknowledged is left out")

    async def check_retention(self) -> None:
        """What otherwise happens every retention_interval_s."""
        await self._retention.check()

    def topic_changed(self, name: Name) -> None:
        """A topic is new, changed or deleted."""
        self.deliveries.topic_changed(name)
        tombstone = self.state.topic_tombstones.get(name)
        if tombstone is not None:
            self.log.forget(tombstone.id)
            self.journal.forget(tombstone.id)
            self.lite_store.forget(tombstone.id)
            self.traffic.forget_topic(tombstone.id)

    def group_changed(self, name: Name) -> None:
        """A group is new, changed or deleted."""
        self.deliveries.group_changed(name)
        self._told_settings.group_changed(name)
        tombstone = self.state.group_tombstones.get(name)
        if tombstone is not None:
            self.traffic.forget_group(tombstone.id)

    def _connect(self) -> None:
        """Who hears of what."""

        def on_messages(topic_id: int) -> None:
            self.deliveries.on_messages(topic_id)
            self.pulling.on_messages(topic_id)

        self.journal.on_messages = on_messages
        self.lite_store.on_messages = self.deliveries.on_lite_messages
        self.journal.on_settled = self.deliveries.settled
        self.held_carrying.sources.append(self.transactions.held_below)
        self.transactions.on_begun = self._transaction_checks.watch
        self.held_carrying.sources.append(self.firing.below)
        self.clients.on_group_change = self.deliveries.members_changed
        self.clients.on_gone = self.deliveries.client_gone
        self.definitions.on_topic = self.topic_changed
        self.definitions.on_group = self.group_changed
        self.resending.on_resent = self.deliveries.resent

    def _build_retention(self, settings: BrokerSettings, clock: Clock, reader: SectionReader) -> Retention:
        return Retention(
            state=self.state,
            log=self.log,
            journal=self.journal,
            reader=reader,
            snapshots=self.snapshots,
            held=self.held_carrying,
            clock=clock,
            retention_ms=int(settings.retention_hours * 3_600_000),
            retention_bytes=settings.retention_bytes,
            interval_s=settings.retention_interval_s,
        )


def _transaction_limits(settings: BrokerSettings) -> Limits:
    return Limits(
        after_ms=int(settings.transaction_check_after_s * 1000),
        interval_ms=int(settings.transaction_check_interval_s * 1000),
        max_checks=settings.transaction_max_checks,
        max_age_ms=int(settings.transaction_max_age_hours * 3_600_000),
        max_open=settings.max_open_transactions,
    )


def _progress_log(clock: Clock) -> Callable[[int, int], None]:
    """Tells of a recovery that takes its time."""
    next_ms = clock.now_ms() + _PROGRESS_EVERY_MS

    def on_progress(position: int, of: int) -> None:
        nonlocal next_ms
        if clock.now_ms() >= next_ms:
            next_ms = clock.now_ms() + _PROGRESS_EVERY_MS
            _logger.info("reading the log", position=position, of=of)

    return on_progress


def _recent_sends(settings: BrokerSettings) -> RecentSends | None:
    """None if a message that is sent again is to be stored again."""
    window_ms = int(settings.dedup_window_s * 1000)
    return (
        RecentSends(window_ms=window_ms, max_ids=settings.dedup_max_ids)
        if window_ms and settings.dedup_max_ids
        else None
    )


def _log_options(settings: BrokerSettings) -> LogOptions:
    return LogOptions(
        segment_bytes=settings.segment_bytes,
        flush=settings.flush,
        flush_interval_ms=settings.flush_interval_ms,
        cache_bytes=settings.cache_bytes,
        disk_watermark_bytes=settings.disk_watermark_bytes,
    )
