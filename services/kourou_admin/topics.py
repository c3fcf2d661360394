"""Topics: created, changed, deleted and listed over all brokers."""

from __future__ import annotations

from kourou import names
from kourou.limits import MAX_QUEUES
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code, MessageType, Permission
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    ChangeTopicRequest,
    ChangeTopicResponse,
    CreateTopicRequest,
    CreateTopicResponse,
    DeleteTopicRequest,
    DeleteTopicResponse,
    ListTopicsRequest,
    ListTopicsResponse,
)
from kourou.protocol.kourou.admin.v1.admin_pb2 import Topic as TopicView
from kourou.protocol.kourou.log.v1.record_pb2 import Topic
from kourou_admin.cluster import Cluster, pick
from kourou_admin.copies import TopicCopies
from kourou_admin.definitions import Holding, check_topic_name
from kourou_admin.outcomes import overall, reading, succeeded
from kourou_service.clock import Clock
from kourou_service.lite_rules import check_expiration
from kourou_service.refusal import Refused

DEFAULT_QUEUES = 8


class Topics:
    def __init__(self, cluster: Cluster, copies: TopicCopies, clock: Clock) -> None:
        self._cluster = cluster
        self._copies = copies
        self._clock = clock

    async def create(self, request: CreateTopicRequest) -> CreateTopicResponse:
        wanted = self._wanted(request)
        async with self._copies.changing:
            census = await self._copies.census()
            targets = pick(census.leaders, request.brokers)
            holding = census.holding(wanted.name)
            if holding.holders:
                definition = self._extended(wanted, holding, request, set(targets) - set(holding.holders))
            else:
                definition = self._new(wanted, holding)
            outcomes = await self._copies.put(census, targets, definition)
        # So that a send right after finds it.
        await self._cluster.wait_for_route(definition.name, [o.broker for o in outcomes if succeeded(o)])
        return CreateTopicResponse(
            status=overall(outcomes), outcomes=outcomes, topic=_view(census.holding(wanted.name))
        )

    async def change(self, request: ChangeTopicRequest) -> ChangeTopicResponse:
        check_topic_name(request.name)
        if not any(map(request.HasField, ("queues", "permission", "lite_expiration_minutes"))):
            raise Refused(
                Code.BAD_REQUEST,
                "nothing to change was given: the number of queues, the permission or when lite topics expire",
            )
        async with self._copies.changing:
            census = await self._copies.census()
            holding = census.holding(request.name)
            if holding.live is None:
                raise census.unknown(Code.TOPIC_NOT_FOUND, "topic", request.name)
            definition = self._changed(request, holding, holding.live)
            # A broker that did not answer may hold it too: its failure belongs to the outcomes.
            outcomes = await self._copies.put(census, {*holding.holders, *census.failures}, definition)
        return ChangeTopicResponse(
            status=overall(outcomes), outcomes=outcomes, topic=_view(census.holding(request.name))
        )

    async def delete(self, request: DeleteTopicRequest) -> DeleteTopicResponse:
        check_topic_name(request.name)
        async with self._copies.changing:
            census = await self._copies.census()
            holding = census.holding(request.name)
            if not holding.holders:
                raise census.unknown(Code.TOPIC_NOT_FOUND, "topic", request.name)
            tombstone = self._successor(holding)
            tombstone.deleted = True
            outcomes = await self._copies.put(census, {*holding.holders, *census.failures}, tombstone)
        return DeleteTopicResponse(status=overall(outcomes), outcomes=outcomes)

    async def list(self, request: ListTopicsRequest) -> ListTopicsResponse:
        census = await self._copies.census()
        if request.HasField("name"):
            check_topic_name(request.name)
            views = [_view(census.holding(request.name))]
            if not census.holding(request.name).holders:
                raise census.unknown(Code.TOPIC_NOT_FOUND, "topic", request.name)
        else:
            holdings = sorted(census.holdings.items())
            views = [_view(holding) for _, holding in holdings if holding.holders]
        failures = list(census.failures.values())
        return ListTopicsResponse(status=reading(failures), topics=views, failures=failures)

    def _wanted(self, request: CreateTopicRequest) -> Topic:
        check_topic_name(request.name)
        fault = names.new_topic_fault(request.name.name)
        if fault:
            raise Refused(Code.ILLEGAL_TOPIC, fault)
        message_type = request.type or MessageType.NORMAL
        if message_type not in MessageType.values():
            raise Refused(Code.BAD_REQUEST, f"unknown topic type {message_type}")
        if request.queues:
            _check_queues(request.queues)
        wanted = Topic(
            name=request.name,
            type=message_type,
            queues=request.queues or DEFAULT_QUEUES,
            permission=Permission.READ_WRITE,
            lite_expiration_minutes=_minutes(request.lite_expiration_minutes),
        )
        check_expiration(wanted)
        return wanted

    def _new(self, wanted: Topic, holding: Holding[Topic]) -> Topic:
        now_ms = self._clock.now_ms()
        wanted.version = holding.next_version(now_ms)
        wanted.deleted_version = holding.deleted_version
        wanted.changed_ms = now_ms
        return wanted

    def _extended(
        self, wanted: Topic, holding: Holding[Topic], request: CreateTopicRequest, lacking: set[str]
    ) -> Topic:
        """The topic is there: more brokers may get it as it is, with the same version; nothing else is a creation."""
        name = wanted.name.name
        live = holding.live
        if live is None:
            left = ", ".join(holding.holders)
            raise Refused(
                Code.PRECONDITION_FAILED, f"topic {name} was deleted, but is still on {left}; delete it again first"
            )
        there = [broker for broker in request.brokers if broker in holding.holders]
        if there or not request.brokers:
            where = ", ".join(there or holding.holders)
            way_out = (
                f"to have it on {', '.join(sorted(lacking))} too, name the broker" if lacking else "change it instead"
            )
            raise Refused(Code.PRECONDITION_FAILED, f"topic {name} exists on {where} already; {way_out}")
        if live.type != wanted.type or (request.queues and live.queues != request.queues):
            raise Refused(
                Code.PRECONDITION_FAILED,
                f"topic {name} exists with type {_type_name(live.type)} and {live.queues} queues;"
                " on more brokers it has to be the same",
            )
        return live

    def _changed(self, request: ChangeTopicRequest, holding: Holding[Topic], live: Topic) -> Topic:
        changed = self._successor(holding)
        if request.HasField("queues"):
            _check_queues(request.queues)
            if request.queues < live.queues:
                raise Refused(
                    Code.BAD_REQUEST,
                    f"topic {request.name.name} has {live.queues} queues; fewer would cut off messages and is refused",
                )
            changed.queues = request.queues
        if request.HasField("permission"):
            if request.permission == Permission.PERMISSION_UNSPECIFIED:
                raise Refused(Code.BAD_REQUEST, "the permission has to be NONE, READ, WRITE or READ_WRITE")
            changed.permission = request.permission
        if request.HasField("lite_expiration_minutes"):
            changed.lite_expiration_minutes = _minutes(request.lite_expiration_minutes)
            check_expiration(changed)
        return changed

    def _successor(self, holding: Holding[Topic]) -> Topic:
        """A copy of the newest definition with the next version."""
        now_ms = self._clock.now_ms()
        successor = Topic()
        successor.CopyFrom(holding.newest or Topic())
        successor.version = holding.next_version(now_ms)
        successor.changed_ms = now_ms
        return successor


def _check_queues(queues: int) -> None:
    if not 1 <= queues <= MAX_QUEUES:
        raise Refused(Code.BAD_REQUEST, f"{queues} queues on each broker were asked for; 1 to {MAX_QUEUES} can be")


def _minutes(minutes: int) -> int:
    if minutes < 0:
        raise Refused(Code.BAD_REQUEST, f"lite topics that expire after {minutes} minutes; 0 is for never")
    return minutes


def _type_name(message_type: int) -> str:
    return MessageType.Name(message_type) if message_type in MessageType.values() else str(message_type)


def _view(holding: Holding[Topic]) -> TopicView:
    newest = holding.newest or Topic()
    return TopicView(
        name=newest.name,
        type=newest.type,
        queues=newest.queues,
        permission=newest.permission,
        version=newest.version,
        brokers=holding.agreeing,
        differing_brokers=holding.differing,
        lite_expiration_minutes=newest.lite_expiration_minutes,
    )
