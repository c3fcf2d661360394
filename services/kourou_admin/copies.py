"""The brokers' copies of topic and group definitions: read from all, written to some, kept equal."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from typing import Generic

from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code, Status
from kourou.protocol.kourou.admin.v1.admin_pb2 import Outcome
from kourou.protocol.kourou.broker.v1 import broker_rpc
from kourou.protocol.kourou.broker.v1.broker_pb2 import (
    ListGroupsRequest,
    ListTopicsRequest,
    PutGroupRequest,
    PutTopicRequest,
)
from kourou.protocol.kourou.log.v1.record_pb2 import Group, Topic
from kourou.protocol.kourou.routing.v1.routing_pb2 import BrokerInfo
from kourou_admin.cluster import Cluster
from kourou_admin.definitions import Census, D, Holding, key
from kourou_admin.outcomes import succeeded


class Copies(ABC, Generic[D]):
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        # Held from a census to the writes that follow from it, so that two changes at one time do not mix.
        self.changing = asyncio.Lock()
        self.reachable = 0
        """Brokers that answered the last census."""

    async def census(self) -> Census[D]:
        """Raises Refused when no broker is known; brokers that do not answer are failures in the census."""
        leaders = await self._cluster.leaders()
        census: Census[D] = Census(leaders, {}, {})
        for outcome, definitions in await self._list(leaders.values()):
            if not succeeded(outcome):
                census.failures[outcome.broker] = outcome
            for definition in definitions:
                holding = census.holdings.setdefault(key(definition.name), Holding())
                holding.by_broker[outcome.broker] = definition
        self.reachable = len(leaders) - len(census.failures)
        return census

    async def put(self, census: Census[D], brokers: Iterable[str], definition: D) -> list[Outcome]:
        """One outcome a broker; brokers that failed the census are not asked again. Takes what was stored into it."""
        targets = sorted(brokers)
        asked = [census.leaders[name] for name in targets if name not in census.failures]
        outcomes = {name: census.failures[name] for name in targets if name in census.failures}
        for outcome, stored_version in await self._put(asked, definition):
            if succeeded(outcome) and stored_version != definition.version:
                message = f"version {stored_version} was stored by another change; look and try again"
                outcome = Outcome(broker=outcome.broker, status=Status(code=Code.PRECONDITION_FAILED, message=message))
            elif succeeded(outcome):
                holding = census.holdings.setdefault(key(definition.name), Holding())
                holding.by_broker[outcome.broker] = definition
            outcomes[outcome.broker] = outcome
        return [outcomes[name] for name in targets]

    async def level(self) -> list[Outcome]:
        """Bring brokers that were away during a change up to date; the outcomes of what was written."""
        async with self.changing:
            census = await self.census()
            outcomes: list[Outcome] = []
            for holding in list(census.holdings.values()):
                newest = holding.newest
                behind = set(holding.differing) | (set(self._lacking(census, holding)) - set(census.failures))
                if newest is not None and behind:
                    outcomes += await self.put(census, behind, newest)
            return outcomes

    @abstractmethod
    async def _list(self, brokers: Collection[BrokerInfo]) -> list[tuple[Outcome, list[D]]]: ...

    @abstractmethod
    async def _put(self, brokers: Collection[BrokerInfo], definition: D) -> list[tuple[Outcome, int]]:
        """With the version that the broker holds afterwards."""

    @abstractmethod
    def _lacking(self, census: Census[D], holding: Holding[D]) -> Iterable[str]:
        """Brokers that know nothing of the definition and should have it."""


class TopicCopies(Copies[Topic]):
    async def _list(self, brokers: Collection[BrokerInfo]) -> list[tuple[Outcome, list[Topic]]]:
        answers = await self._cluster.ask_all(brokers, broker_rpc.LIST_TOPICS, ListTopicsRequest())
        return [(answer.outcome, list(answer.response.topics) if answer.response else []) for answer in answers]

    async def _put(self, brokers: Collection[BrokerInfo], definition: Topic) -> list[tuple[Outcome, int]]:
        answers = await self._cluster.ask_all(brokers, broker_rpc.PUT_TOPIC, PutTopicRequest(topic=definition))
        return [(answer.outcome, answer.response.topic.version if answer.response else 0) for answer in answers]

    def _lacking(self, census: Census[Topic], holding: Holding[Topic]) -> Iterable[str]:
        # A topic may lie on chosen brokers only.
        return ()


class GroupCopies(Copies[Group]):
    async def _list(self, brokers: Collection[BrokerInfo]) -> list[tuple[Outcome, list[Group]]]:
        answers = await self._cluster.ask_all(brokers, broker_rpc.LIST_GROUPS, ListGroupsRequest())
        return [(answer.outcome, list(answer.response.groups) if answer.response else []) for answer in answers]

    async def _put(self, brokers: Collection[BrokerInfo], definition: Group) -> list[tuple[Outcome, int]]:
        answers = await self._cluster.ask_all(brokers, broker_rpc.PUT_GROUP, PutGroupRequest(group=definition))
        return [(answer.outcome, answer.response.group.version if answer.response else 0) for answer in answers]

    def _lacking(self, census: Census[Group], holding: Holding[Group]) -> Iterable[str]:
        # A group is on all brokers: it may subscribe to any topic.
        return set(census.leaders) - set(holding.by_broker) if holding.live else ()
