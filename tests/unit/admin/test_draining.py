"""What holds a drain up, and in which order a broker leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    DrainBacklog,
    DrainBrokerRequest,
    DrainBrokerResponse,
    DrainPhase,
    ForgetBrokerRequest,
)
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_admin.backlog import read_backlog
from kourou_admin.brokers import Brokers
from kourou_admin.copies import TopicCopies
from kourou_admin.draining import Draining
from kourou_service.refusal import Refused
from tests.simulation.time import simulate
from tests.unit.admin.fake_cluster import OK, FakeBroker, FakeNetwork

ORDERS = v2.Resource(name="orders")


def simulated(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A report a second, without waiting for it."""

    @wraps(test)
    def run() -> None:
        simulate(test())

    return run


class Shard:
    """What a broker of the fake network holds and does, as far as a drain sees it."""

    def __init__(self, broker: FakeBroker) -> None:
        self.broker = broker
        self.permission = v2.READ_WRITE
        self.stored = 0
        self.held: list[broker_pb2.HeldMessages] = []
        self.queues: list[broker_pb2.Queue] = []
        self.clients: list[broker_pb2.Client] = []
        self.steps: list[str] = []
        broker.topics["orders"] = record_pb2.Topic(name=ORDERS, queues=1, version=1, type=v2.NORMAL)
        broker.answers |= {
            broker_rpc.DESCRIBE_QUEUES.path: lambda _: broker_pb2.DescribeQueuesResponse(status=OK, queues=self.queues),
            broker_rpc.LIST_CLIENTS.path: lambda _: broker_pb2.ListClientsResponse(status=OK, clients=self.clients),
            broker_rpc.DESCRIBE_BROKER.path: lambda _: broker_pb2.DescribeBrokerResponse(
                status=OK, stored_messages=self.stored, held_messages=self.held
            ),
            broker_rpc.SET_PERMISSION.path: self._permit,
            broker_rpc.FORGET_BROKER.path: self._forget,
            broker_rpc.STOP_BROKER.path: self._stop,
        }

    def _permit(self, request: broker_pb2.SetPermissionRequest) -> broker_pb2.SetPermissionResponse:
        self.permission = request.permission
        self.steps.append(v2.Permission.Name(request.permission))
        return broker_pb2.SetPermissionResponse(status=OK)

    def _forget(self, request: broker_pb2.ForgetBrokerRequest) -> broker_pb2.ForgetBrokerResponse:
        self.steps.append(f"forget {request.broker}")
        return broker_pb2.ForgetBrokerResponse(status=OK)

    def _stop(self, _: broker_pb2.StopBrokerRequest) -> broker_pb2.StopBrokerResponse:
        self.steps.append("stop")
        return broker_pb2.StopBrokerResponse(status=OK)

    def holds(self, messages: int, *progress: broker_pb2.Progress, topic: v2.Resource = ORDERS) -> None:
        self.queues.append(broker_pb2.Queue(topic=topic, next_offset=messages, progress=progress))

    def consumer(self, id_: str, group: str, topic: str = "orders", type_: v2.ClientType = v2.PUSH_CONSUMER) -> None:
        entry = v2.SubscriptionEntry(topic=v2.Resource(name=topic))
        resource = v2.Resource(name=group)
        self.clients.append(broker_pb2.Client(client_id=id_, type=type_, group=resource, subscriptions=[entry]))


class World:
    def __init__(self) -> None:
        self.network = FakeNetwork("broker-a", "broker-b")
        self.a, self.b = (Shard(broker) for broker in self.network.brokers.values())
        self.cluster = self.network.cluster()

    async def backlog(self) -> list[DrainBacklog]:
        return await read_backlog(self.cluster, await self.cluster.leaders(), "broker-b")

    async def drain(
        self, on_report: Callable[[DrainBrokerResponse], None] = lambda _: None, **fields: Any
    ) -> list[DrainBrokerResponse]:
        reports: list[DrainBrokerResponse] = []
        request = DrainBrokerRequest(broker="broker-b", **fields)
        async for report in Draining(self.cluster, TopicCopies(self.cluster)).drain(request):
            reports.append(report)
            on_report(report)
        return reports


def progress(group: str, lag: int, inflight: int = 0) -> broker_pb2.Progress:
    return broker_pb2.Progress(group=v2.Resource(name=group), lag=lag, inflight=inflight)


@simulated
async def test_a_backlog_counts_what_each_group_has_not_settled() -> None:
    world = World()
    world.b.holds(10, progress("team", 3, inflight=2), progress("others", 0))
    world.b.holds(5, progress("team", 1), progress("others", 0))
    world.a.consumer("one", "team")
    world.b.consumer("one", "team")  # the same client, connected to both
    world.b.consumer("two", "team", type_=v2.SIMPLE_CONSUMER)
    world.b.consumer("three", "team", type_=v2.PRODUCER)
    [entry] = await world.backlog()
    assert (entry.group.name, entry.messages, entry.inflight, entry.members) == ("team", 4, 2, 2)


@simulated
async def test_a_group_that_reads_elsewhere_will_come_for_all_that_is_here() -> None:
    world = World()
    world.b.holds(7, progress("team", 0))
    world.a.holds(0, progress("by-progress", 0))
    world.a.consumer("one", "by-subscription")
    assert [(entry.group.name, entry.messages, entry.members) for entry in await world.backlog()] == [
        ("by-progress", 7, 0),
        ("by-subscription", 7, 1),
    ]


@simulated
async def test_messages_that_no_group_reads_are_left_over() -> None:
    world = World()
    world.b.holds(7)
    world.b.holds(0, topic=v2.Resource(name="empty"))
    [entry] = await world.backlog()
    assert (entry.topic.name, entry.HasField("group"), entry.messages) == ("orders", False, 7)


@simulated
async def test_a_broker_leaves_when_it_is_empty_and_quiet() -> None:
    world = World()
    world.b.holds(4, progress("team", 4))
    world.b.consumer("one", "team")

    def consume(report: DrainBrokerResponse) -> None:
        left = world.b.queues[0].progress[0]
        if report.phase == DrainPhase.DRAIN_PHASE_CONSUMING:
            left.lag -= 1
        if report.phase == DrainPhase.DRAIN_PHASE_QUIET and world.b.stored < 3:
            world.b.stored += 1  # a producer that was under way

    reports = await world.drain(consume, keep_running=True)
    phases = [report.phase for report in reports]
    assert phases == sorted(phases)
    assert phases.count(DrainPhase.DRAIN_PHASE_CONSUMING) == 4
    # Each message that was stored begins the quiet time anew.
    assert phases.count(DrainPhase.DRAIN_PHASE_QUIET) == 1 + 3 + 3
    assert world.b.steps == ["READ", "NONE"]
    assert world.a.steps == ["forget broker-b"]


@simulated
async def test_what_comes_at_the_last_moment_is_still_consumed() -> None:
    world = World()
    world.b.consumer("one", "team")

    def late(report: DrainBrokerResponse) -> None:
        if report.phase == DrainPhase.DRAIN_PHASE_QUIET and not world.b.queues and len(quiet) == 2:
            world.b.holds(1, progress("team", 1))
        elif report.phase == DrainPhase.DRAIN_PHASE_CONSUMING:
            world.b.queues[0].progress[0].lag = 0
        if report.phase == DrainPhase.DRAIN_PHASE_QUIET:
            quiet.append(report)

    quiet: list[DrainBrokerResponse] = []
    reports = await world.drain(late, keep_running=True)
    assert world.b.steps == ["READ", "NONE", "READ", "NONE"]
    assert reports[-1].phase == DrainPhase.DRAIN_PHASE_DONE
    assert not reports[-1].backlog


@simulated
async def test_what_nobody_consumes_ends_a_drain_unless_it_is_forced() -> None:
    world = World()
    world.b.holds(4, progress("team", 4))
    began = asyncio.get_running_loop().time()
    with pytest.raises(Refused, match="4 messages of orders for group team, of which no member reads it"):
        await world.drain()
    assert asyncio.get_running_loop().time() - began == pytest.approx(9.0, abs=0.5)  # the tenth look
    assert world.b.permission == v2.READ
    reports = await world.drain(force=True, keep_running=True)
    assert [entry.messages for entry in reports[-1].backlog] == [4]
    assert world.b.permission == v2.NONE


@simulated
async def test_messages_that_are_held_keep_a_broker_in_unless_it_is_forced() -> None:
    world = World()
    world.b.held.append(broker_pb2.HeldMessages(topic=v2.Resource(name="later"), delayed=3))
    world.b.held.append(broker_pb2.HeldMessages(topic=v2.Resource(name="payments"), delayed=0, half=2))
    with pytest.raises(
        Refused, match=r"3 delayed messages of later, which .*; 2 messages of open transactions of payments"
    ):
        await world.drain()
    assert world.b.permission == v2.READ
    forced = await world.drain(force=True, keep_running=True)
    assert [(entry.topic.name, entry.messages, entry.delayed, entry.half) for entry in forced[-1].backlog] == [
        ("later", 3, 3, 0),
        ("payments", 2, 0, 2),
    ]
    world = World()
    world.b.held.append(broker_pb2.HeldMessages(topic=v2.Resource(name="later"), delayed=1))

    def fall_due(report: DrainBrokerResponse) -> None:
        if report.phase == DrainPhase.DRAIN_PHASE_CONSUMING:
            world.b.held.clear()

    reports = await world.drain(fall_due, keep_running=True)
    assert reports[-1].phase == DrainPhase.DRAIN_PHASE_DONE, "they fell due in time"


@simulated
async def test_a_member_that_reads_other_topics_only_will_not_come() -> None:
    world = World()
    world.b.holds(4, progress("team", 4))
    world.a.consumer("one", "team", topic="payments")
    with pytest.raises(Refused, match="4 messages of orders for group team"):
        await world.drain()
    assert (await world.drain(force=True, keep_running=True))[-1].phase == DrainPhase.DRAIN_PHASE_DONE


@simulated
async def test_a_member_that_comes_back_in_time_goes_on() -> None:
    world = World()
    world.b.holds(1, progress("team", 1))

    def come(report: DrainBrokerResponse) -> None:
        seen.append(report)
        if len(seen) == 6:
            world.b.consumer("one", "team")
        if len(seen) == 20:
            world.b.queues[0].progress[0].lag = 0

    seen: list[DrainBrokerResponse] = []
    assert (await world.drain(come, keep_running=True))[-1].phase == DrainPhase.DRAIN_PHASE_DONE


@simulated
async def test_a_broker_that_does_not_answer_for_a_moment_does_not_end_a_drain() -> None:
    world = World()

    loop = asyncio.get_running_loop()

    def fail_for_a_while(report: DrainBrokerResponse) -> None:
        if report.phase == DrainPhase.DRAIN_PHASE_WRITES_OFF:
            world.a.broker.down = True
            loop.call_later(5, setattr, world.a.broker, "down", False)

    reports = await world.drain(fail_for_a_while, force=True, keep_running=True)
    assert reports[-1].phase == DrainPhase.DRAIN_PHASE_DONE
    world.a.broker.down = True
    with pytest.raises(Refused, match="broker-a does not answer"):
        await world.drain(force=True)


@simulated
async def test_a_stopped_broker_is_waited_for_until_it_said_goodbye() -> None:
    world = World()
    world.b.broker.answers[broker_rpc.STOP_BROKER.path] = lambda _: (
        world.network.brokers.pop("broker-b") and broker_pb2.StopBrokerResponse(status=OK)
    )
    assert (await world.drain())[-1].phase == DrainPhase.DRAIN_PHASE_DONE
    world = World()
    with pytest.raises(Refused, match="still registered"):
        await world.drain()


@simulated
async def test_only_who_is_away_is_forgotten() -> None:
    world = World()
    brokers = Brokers(world.cluster)
    with pytest.raises(Refused, match="broker-b is registered"):
        await brokers.forget(ForgetBrokerRequest(broker="broker-b"))
    with pytest.raises(Refused, match="no broker knows one named 'broker-c'"):
        await brokers.forget(ForgetBrokerRequest(broker="broker-c"))
    world.a.broker.answers[broker_rpc.DESCRIBE_BROKER.path] = lambda _: broker_pb2.DescribeBrokerResponse(
        status=OK, known_brokers=["broker-a", "broker-c"]
    )
    response = await brokers.forget(ForgetBrokerRequest(broker="broker-c"))
    assert [outcome.broker for outcome in response.outcomes] == ["broker-a"]
    assert (world.a.steps, world.b.steps) == (["forget broker-c"], [])


@simulated
async def test_a_topic_that_clients_could_use_nowhere_else_keeps_a_broker_in() -> None:
    world = World()
    del world.a.broker.topics["orders"]
    with pytest.raises(Refused, match="1 topics are on no broker but broker-b that takes messages: orders"):
        await world.drain()
    world.a.broker.down = True
    with pytest.raises(Refused, match="what broker-a holds is not known"):
        await world.drain()
    assert world.b.steps == []
