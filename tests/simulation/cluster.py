"""Brokers on simulated disks: the real code from the doors down to the log, which crash as a seed wants it.

disk and lookup are the only parts that are not the broker's own; the doors open on any engine.
"""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.core import BrokerCore, Surroundings
from kourou_broker.log.lookup import Searcher
from kourou_broker.log.repair import scrub
from kourou_broker.operations.search import Place
from kourou_broker.rpc.administering import AdministeringDoor
from kourou_broker.rpc.backing_up import BackingUpDoor
from kourou_broker.rpc.commanding import CommandingDoor
from kourou_broker.rpc.consuming import ConsumingDoor
from kourou_broker.rpc.dead_letters import DeadLetterDoor
from kourou_broker.rpc.delivered import Deliverer
from kourou_broker.rpc.ending import EndingDoor
from kourou_broker.rpc.explaining import ExplainingDoor
from kourou_broker.rpc.lite import LiteDoor
from kourou_broker.rpc.offsets import OffsetsDoor
from kourou_broker.rpc.presence import PresenceDoor
from kourou_broker.rpc.publishing import PublishingDoor
from kourou_broker.rpc.recalling import RecallingDoor
from kourou_broker.rpc.receiving import ReceivingDoor
from kourou_broker.rpc.routing import RoutingDoor
from kourou_broker.rpc.sending import SendingDoor
from kourou_broker.rpc.settling import SettlingDoor
from kourou_broker.rpc.status import BrokerStatus
from kourou_broker.rpc.stream_settling import StreamSettling
from kourou_broker.settings import BrokerSettings
from kourou_broker.state import State, fold, timers
from kourou_broker.state.definitions import Name, Topic
from kourou_broker.state.history import HeldHistory, MessageHistory
from kourou_broker.state.history_search import HistorySearch
from kourou_broker.state.indexing import index_segment
from kourou_service.engine import Engine
from kourou_service.listener import ListenerNames
from kourou_service.refusal import Refused
from tests.simulation.direct import DirectEngine
from tests.simulation.disk import PowerCut, SimDisk, SimMedium, SimWorker
from tests.simulation.time import Process, SimulatedClock

SEGMENT_BYTES = 64 * 1024

Serve = Callable[[BrokerCore], Awaitable[None]]


@functools.cache
def _defaults() -> BrokerSettings:
    return BrokerSettings()


def small_settings(**changes: Any) -> BrokerSettings:
    """A broker's settings with segments so small that a test fills many; `changes` are not checked for sense."""
    small = {"segment_bytes": SEGMENT_BYTES, "disk_watermark_bytes": 0, "cache_bytes": 16 * 1024}
    return _defaults().model_copy(update={**small, **changes})


class DirectLookup:
    """What a helper process does with the files, done at once; it has tests of its own."""

    def __init__(self, medium: SimMedium) -> None:
        self._searcher = Searcher(medium)

    async def prepare(self) -> None:
        self._searcher.prepare()

    async def by_id(self, topic: int, message_id: str, limit: int) -> Sequence[Place]:
        return self._searcher.by_id(topic, message_id, limit)

    async def by_key(self, topic: int, key: str, limit: int) -> Sequence[Place]:
        return self._searcher.by_key(topic, key, limit)

    async def by_time(self, topic: int, from_ms: int, to_ms: int, limit: int) -> Sequence[Place]:
        return self._searcher.by_time(topic, from_ms, to_ms, limit)


class DirectHistories:
    """The same."""

    def __init__(self, medium: SimMedium) -> None:
        self._search = HistorySearch(medium)

    async def of(self, topic: int, queue: int, offset: int, since: int | None) -> MessageHistory:
        return self._search.history(topic, queue, offset, since)

    async def of_held(self, topic: int, origin: timers.Place) -> HeldHistory:
        return self._search.held_history(topic, origin)


class OwnRoutes:
    """The route of a cluster of this one broker."""

    def __init__(self, core: BrokerCore, name: str) -> None:
        self._core = core
        self._name = name

    async def ask(self, topic: Name, listener: str) -> Sequence[definition_pb2.MessageQueue]:
        known = self._core.state.topics.get(topic)
        return [self._queue(known, queue.id) for queue in known.queues] if known is not None else []

    def _queue(self, topic: Topic, queue: int) -> definition_pb2.MessageQueue:
        return definition_pb2.MessageQueue(
            topic=topic.name.resource(),
            id=queue,
            permission=definition_pb2.Permission.Name(topic.permission),
            broker=definition_pb2.Broker(name=self._name),
            accept_message_types=[definition_pb2.NORMAL],
        )


class Shard:
    """One broker and its disk. It starts, stops, crashes and starts again; `core` is there while it runs."""

    def __init__(self, name: str, rng: random.Random, settings: BrokerSettings | None = None) -> None:
        self.name = name
        self.rng = rng
        self.settings = (settings or small_settings()).model_copy(update={"name": name})
        self.clock = SimulatedClock()
        self.disk = SimDisk(random.Random(rng.getrandbits(64)))
        self.process = Process(name)
        self.core: BrokerCore | None = None
        self.doors: DirectEngine | None = None
        self.max_sync_s = 0.01
        self.on_crash: Callable[[], None] = lambda: None
        """Called when power went or a write failed, and the process is gone."""
        self.on_recovered: Callable[[State], None] = lambda _state: None
        """Called after each recovery, before anybody can change the state."""

    async def start(self, process: Process | None = None, serve: Serve | None = None) -> None:
        """Recovery, then `serve`, which opens the doors: without a network if not told otherwise.

        Raises LogError, PowerCut.
        """
        self.process = process or Process(self.name)
        medium = SimMedium(self.disk)
        try:
            await self.process.start(self._start(medium, serve or self._serve_directly))
        except PowerCut:
            self.cut_power()
            raise

    async def _start(self, medium: SimMedium, serve: Serve) -> None:
        self.core = core = BrokerCore(self.settings, self._surroundings(medium))
        self.on_recovered(core.state)
        await serve(core)

    async def _serve_directly(self, core: BrokerCore) -> None:
        self.doors = DirectEngine(self.process)
        open_doors(core, self.settings, self.clock, self.doors, OwnRoutes(core, self.name))
        core.start()

    async def stop(self) -> None:
        """Cleanly: everything is on the disk."""
        assert self.core is not None
        process = self.process
        if self.doors is not None:
            await process.start(self.doors.stop(5.0))
        await process.start(self.core.close())
        if process.alive:
            self._gone(process)
            self.disk.kill()

    def kill(self) -> None:
        """kill -9: the disk has what was written, synced or not."""
        self._gone(self.process)
        self.disk.kill()

    def cut_power(self) -> None:
        """The machine goes down: unsynced writes are lost, kept, torn, one by one."""
        self._gone(self.process)
        self.disk.cut_power()

    def _gone(self, process: Process) -> None:
        self.core = self.doors = None
        process.kill()

    def _surroundings(self, medium: SimMedium) -> Surroundings:
        process = self.process

        def power_cut() -> None:
            if process.alive:
                self.cut_power()
                self.on_crash()

        def fatal(_problem: BaseException) -> None:
            if process.alive:
                self.kill()
                self.on_crash()

        async def fold_to(position: int) -> bytes:
            await asyncio.sleep(self.rng.random() * 0.1)
            return fold.snapshot_at(medium, position)

        async def scrub_segment(base: int) -> str | None:
            return scrub(medium, base)

        async def index(base: int) -> None:
            index_segment(medium, base)

        def worker() -> SimWorker:
            return SimWorker(lambda: self.rng.random() * self.max_sync_s, power_cut)

        return Surroundings(
            clock=self.clock,
            medium=medium,
            committer=worker(),
            reader=worker(),
            background=worker(),
            lookup=DirectLookup(medium),
            histories=DirectHistories(medium),
            fold_to=fold_to,
            scrub=scrub_segment,
            index=index,
            incarnation=self.rng.getrandbits(64),
            fatal=fatal,
        )


async def _nobody_else(owner: str, *_request: object) -> service_pb2.RecallMessageResponse:
    raise Refused(definition_pb2.PROXY_TIMEOUT, f"broker {owner} is not there")


def open_doors(core: BrokerCore, settings: BrokerSettings, clock: SimulatedClock, engine: Engine, routes: Any) -> None:
    """As kourou_broker.service does it; `routes` answers `ask` as kourou_broker.routes.Routes does."""
    deliverer = Deliverer(f"{settings.name}:10911")
    status = BrokerStatus(
        cluster=settings.cluster,
        name=settings.name,
        id=0,
        version="0",
        started_ms=clock.now_ms(),
        state=core.state,
        log=core.log,
        medium=core.medium,
        clients=core.clients,
        sending=core.sending,
        traffic=core.traffic,
    )
    PresenceDoor(core.definitions, core.clients, core.commands).open(engine)
    SendingDoor(core.sending, core.clients, core.traffic).open(engine)
    ReceivingDoor(core.definitions, core.clients, core.deliveries, core.pulling, deliverer, clock).open(engine)
    PublishingDoor(core.sending, core.clients, core.traffic, window_bytes=settings.publish_window_bytes).open(engine)
    ConsumingDoor(
        core.definitions,
        core.clients,
        core.deliveries,
        StreamSettling(core.state, core.deliveries, core.journal),
        stream_grace_s=settings.client_stream_grace_s,
    ).open(engine)
    SettlingDoor(core.definitions, core.clients, core.deliveries, core.journal).open(engine)
    EndingDoor(core.definitions, core.clients, core.transactions).open(engine)
    RecallingDoor(core.definitions, core.clients, core.recalling, _nobody_else, settings.name).open(engine)
    LiteDoor(core.definitions, core.clients, core.lite_subscriptions, core.journal).open(engine)
    OffsetsDoor(core.definitions, core.clients, core.offsets, core.deliveries, core.journal).open(engine)
    RoutingDoor(
        names=ListenerNames(settings.listeners, settings.fallback_listener),
        routes=routes,
        definitions=core.definitions,
        clients=core.clients,
        assignments=core.assignments,
    ).open(engine)
    AdministeringDoor(
        state=core.state,
        definitions=core.definitions,
        creation_times=core.creation_times,
        journal=core.journal,
        clients=core.clients,
        deliveries=core.deliveries,
        offsets=core.offsets,
        search=core.search,
        status=status,
        deliverer=deliverer,
        clock=clock,
    ).open(engine)
    DeadLetterDoor(core.state, core.definitions, core.journal, core.resending, deliverer).open(engine)
    CommandingDoor(core.commands, core.definitions, core.search, deliverer).open(engine)
    ExplainingDoor(core.definitions, core.explaining, status, deliverer).open(engine)
    BackingUpDoor(core.backups).open(engine)


def topic_definition(name: str, queues: int = 1, version: int = 1, **fields: Any) -> record_pb2.Topic:
    fields = {"type": definition_pb2.NORMAL, "permission": definition_pb2.READ_WRITE, **fields}
    return record_pb2.Topic(name=definition_pb2.Resource(name=name), queues=queues, version=version, **fields)


def group_definition(
    name: str,
    max_attempts: int = 16,
    backoff_s: Sequence[float] = (),
    version: int = 1,
    retry: definition_pb2.RetryPolicy | None = None,
    **fields: Any,
) -> record_pb2.Group:
    """`retry` stands instead of attempts and backoff."""
    if retry is None:
        retry = definition_pb2.RetryPolicy(max_attempts=max_attempts)
        for step_s in backoff_s:
            retry.customized_backoff.next.add().FromMilliseconds(int(step_s * 1000))
    return record_pb2.Group(name=definition_pb2.Resource(name=name), retry=retry, version=version, **fields)
