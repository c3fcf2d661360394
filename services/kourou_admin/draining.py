"""Draining: a broker leaves the cluster with nothing left behind, and what holds it up is told on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

import structlog

from kourou.names import dead_letter_group
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code, Permission
from kourou.protocol.kourou.admin.v1.admin_pb2 import DrainBacklog, DrainBrokerRequest, DrainBrokerResponse, DrainPhase
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.routing.v1.routing_pb2 import BrokerInfo
from kourou.protocol.method import UnaryMethod
from kourou_admin.backlog import read_backlog
from kourou_admin.cluster import A, Cluster, Q, pick
from kourou_admin.copies import TopicCopies
from kourou_service.door import OK
from kourou_service.refusal import Refused

_logger = structlog.stdlib.get_logger(__name__)

_REPORT_INTERVAL_S = 1.0
_SHARE_OF_TIME = 0.1
"""Looking at a large cluster takes its time: no more than this share is spent on it."""
_QUIET_REPORTS = 3
_BLOCKED_REPORTS = 10
"""A consumer that is only restarting is back within so many reports."""
_FAILED_REPORTS = 15
_LEAVE_TIMEOUT_S = 15.0
_LEAVE_INTERVAL_S = 0.1
_WRITING = frozenset((Permission.WRITE, Permission.READ_WRITE))
_SHOWN = 8


class Draining:
    def __init__(self, cluster: Cluster, topics: TopicCopies) -> None:
        self._cluster = cluster
        self._topics = topics

    async def drain(self, request: DrainBrokerRequest) -> AsyncGenerator[DrainBrokerResponse, None]:
        """A report a second until the broker is out. Raises Refused, with the broker's writes off once one report came.

        Who stops listening stops the drain where it is.
        """
        if not request.broker:
            raise Refused(Code.BAD_REQUEST, "the broker's name is missing")
        leaders = await self._cluster.leaders()
        pick(leaders, [request.broker])
        if not request.force:
            await self._check_others(leaders, request.broker)
        drain = _Drain(self._cluster, request)
        async for report in drain.run():
            yield report

    async def _check_others(self, leaders: Mapping[str, BrokerInfo], broker: str) -> None:
        """Raises Refused when clients would have nowhere to go."""
        others = {name for name, info in leaders.items() if name != broker and info.permission in _WRITING}
        if not others:
            raise Refused(
                Code.PRECONDITION_FAILED,
                f"no broker but {broker} takes messages; --force drains it all the same",
            )
        census = await self._topics.census()
        only_here = [
            live.name.name
            for _, holding in sorted(census.holdings.items())
            if (live := holding.live)
            and broker in holding.holders
            and others.isdisjoint(holding.holders)
            and dead_letter_group(live.name.name) is None
        ]
        if only_here and (silent := sorted(census.failures)):
            status = census.failures[silent[0]].status
            raise Refused(status.code, f"what {silent[0]} holds is not known: {status.message}")
        if only_here:
            shown = ", ".join(only_here[:_SHOWN]) + (" …" if len(only_here) > _SHOWN else "")
            raise Refused(
                Code.PRECONDITION_FAILED,
                f"{len(only_here)} topics are on no broker but {broker} that takes messages: {shown}; `kourou topic"
                " spread` puts them on the others, --force drains the broker all the same",
            )


class _Drain:
    """One drain of one broker."""

    def __init__(self, cluster: Cluster, request: DrainBrokerRequest) -> None:
        self._cluster = cluster
        self._name = request.broker
        self._force = request.force
        self._keep_running = request.keep_running
        self._stored = self._delivered = 0
        self._quiet = self._blocked = self._failed = 0

    async def run(self) -> AsyncGenerator[DrainBrokerResponse, None]:
        await self._permit(Permission.READ)
        _logger.info("a broker is drained", broker=self._name)
        yield DrainBrokerResponse(status=OK, phase=DrainPhase.DRAIN_PHASE_WRITES_OFF)
        while True:
            async for report in self._until_quiet():
                yield report
            await self._permit(Permission.NONE)
            left = await self._backlog()
            yield DrainBrokerResponse(status=OK, phase=DrainPhase.DRAIN_PHASE_LEAVING, backlog=left)
            # With reads and writes off nothing can change any more: this look is the proof.
            if not self._waits_for(left):
                break
            await self._permit(Permission.READ)
        await self._be_forgotten()
        if not self._keep_running:
            await self._stop()
        _logger.info("a broker was drained", broker=self._name, left=sum(entry.messages for entry in left))
        yield DrainBrokerResponse(status=OK, phase=DrainPhase.DRAIN_PHASE_DONE, backlog=left)

    async def _until_quiet(self) -> AsyncGenerator[DrainBrokerResponse, None]:
        self._quiet = self._blocked = self._failed = 0
        loop = asyncio.get_running_loop()
        while self._quiet < _QUIET_REPORTS:
            began = loop.time()
            try:
                left, moved = await self._backlog(), await self._moved()
            except Refused:
                # A broker that is only restarting must not end a drain that took hours.
                self._failed += 1
                if self._failed >= _FAILED_REPORTS:
                    raise
            else:
                self._failed = 0
                yield self._report(left, moved)
            await asyncio.sleep(max(_REPORT_INTERVAL_S, (loop.time() - began) / _SHARE_OF_TIME))

    def _report(self, left: list[DrainBacklog], moved: tuple[int, int]) -> DrainBrokerResponse:
        """Raises Refused when nobody has been there to consume what is left for too long."""
        waits = self._waits_for(left)
        self._quiet = 0 if waits or moved != (0, 0) else self._quiet + 1
        self._blocked = self._blocked + 1 if waits and not any(entry.members for entry in left) else 0
        if self._blocked >= _BLOCKED_REPORTS:
            raise Refused(Code.PRECONDITION_FAILED, self._blocked_by(waits))
        phase = DrainPhase.DRAIN_PHASE_CONSUMING if waits else DrainPhase.DRAIN_PHASE_QUIET
        return DrainBrokerResponse(status=OK, phase=phase, backlog=left, stored=moved[0], delivered=moved[1])

    def _waits_for(self, backlog: list[DrainBacklog]) -> list[DrainBacklog]:
        """With force, what nobody will consume is left behind."""
        return [entry for entry in backlog if entry.members or not self._force]

    def _blocked_by(self, entries: list[DrainBacklog]) -> str:
        what = "; ".join(_described(entry) for entry in entries[:_SHOWN]) + (" …" if len(entries) > _SHOWN else "")
        return (
            f"nobody consumes what is left on {self._name}: {what}. Start the consumers, wait for what is held or"
            " recall it, and drain again; or leave these messages in its data folder with --force;"
            f" `kourou broker on {self._name}` gives its permissions back"
        )

    async def _backlog(self) -> list[DrainBacklog]:
        return await read_backlog(self._cluster, await self._leaders(), self._name)

    async def _moved(self) -> tuple[int, int]:
        """Messages stored and delivered since the last look."""
        described = await self._ask(broker_rpc.DESCRIBE_BROKER, broker_pb2.DescribeBrokerRequest())
        now = described.stored_messages, described.delivered_messages
        moved = max(0, now[0] - self._stored), max(0, now[1] - self._delivered)  # they begin anew with a restart
        self._stored, self._delivered = now
        return moved

    async def _permit(self, permission: Permission) -> None:
        await self._ask(broker_rpc.SET_PERMISSION, broker_pb2.SetPermissionRequest(permission=permission))

    async def _be_forgotten(self) -> None:
        """A NameServer that starts must not wait for a broker that is not coming. Raises Refused."""
        others = [info for name, info in (await self._leaders()).items() if name != self._name]
        order = broker_pb2.ForgetBrokerRequest(broker=self._name)
        for answer in await self._cluster.ask_all(others, broker_rpc.FORGET_BROKER, order):
            if answer.response is None:
                raise Refused(
                    answer.status.code,
                    f"{self._name} is drained, but {answer.broker} could not be made to forget it:"
                    f" {answer.status.message}; drain again when it answers",
                )

    async def _stop(self) -> None:
        """Returns when the broker has said goodbye to the NameServers. Raises Refused."""
        await self._ask(broker_rpc.STOP_BROKER, broker_pb2.StopBrokerRequest())
        try:
            async with asyncio.timeout(_LEAVE_TIMEOUT_S):
                while self._name in await self._registered():  # noqa: ASYNC110  (it happens behind the network)
                    await asyncio.sleep(_LEAVE_INTERVAL_S)
        except TimeoutError:
            raise Refused(
                Code.INTERNAL_SERVER_ERROR, f"{self._name} is drained and was told to stop, but is still registered"
            ) from None

    async def _registered(self) -> set[str]:
        try:
            return {broker.name for broker in await self._cluster.brokers()}
        except Refused:
            return set()  # it was the last one

    async def _leaders(self) -> dict[str, BrokerInfo]:
        leaders = await self._cluster.leaders()
        pick(leaders, [self._name])
        return leaders

    async def _ask(self, method: UnaryMethod[Q, A], request: Q) -> A:
        answer = await self._cluster.ask((await self._leaders())[self._name], method, request)
        if answer.response is None:
            raise Refused(answer.status.code, f"broker {self._name}: {answer.status.message}")
        return answer.response


def _described(entry: DrainBacklog) -> str:
    if entry.delayed or entry.half:
        kinds = ((entry.delayed, "delayed messages"), (entry.half, "messages of open transactions"))
        held = " and ".join(f"{count} {kind}" for count, kind in kinds if count)
        return f"{held} of {entry.topic.name}, which no consumer can see yet"
    group = entry.group.name
    reader = f"for group {group}, of which no member reads it" if group else "that no group reads"
    return f"{entry.messages} messages of {entry.topic.name} {reader}"
