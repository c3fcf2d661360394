"""Consumer groups: created, changed, deleted and listed over all brokers."""

from __future__ import annotations

from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code, RetryPolicy
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    ChangeGroupRequest,
    ChangeGroupResponse,
    CreateGroupRequest,
    CreateGroupResponse,
    DeleteGroupRequest,
    DeleteGroupResponse,
    GroupSettings,
    ListGroupsRequest,
    ListGroupsResponse,
)
from kourou.protocol.kourou.admin.v1.admin_pb2 import Group as GroupView
from kourou.protocol.kourou.log.v1.record_pb2 import Assignment, Group, LiteGroup, Order, Start
from kourou_admin.cluster import Cluster
from kourou_admin.copies import GroupCopies
from kourou_admin.definitions import Holding, check_group_name
from kourou_admin.differing_subscriptions import clients_of, differing_subscriptions
from kourou_admin.outcomes import overall, reading
from kourou_service.client_settings import default_retry
from kourou_service.clock import Clock
from kourou_service.group_rules import check_group
from kourou_service.refusal import Refused


class Groups:
    def __init__(self, copies: GroupCopies, clock: Clock, cluster: Cluster) -> None:
        self._copies = copies
        self._cluster = cluster
        self._clock = clock

    async def create(self, request: CreateGroupRequest) -> CreateGroupResponse:
        check_group_name(request.name)
        wanted = Group(
            name=request.name,
            order=Order.ORDER_CONCURRENT,
            assignment=Assignment.ASSIGNMENT_EXCLUSIVE,
            retry=default_retry(),
            start=Start.START_FIRST,
        )
        _apply(request.settings, wanted)
        async with self._copies.changing:
            census = await self._copies.census()
            holding = census.holding(request.name)
            if holding.holders:
                where = ", ".join(holding.holders)
                message = f"group {request.name.name} exists on {where} already; change it instead"
                raise Refused(Code.PRECONDITION_FAILED, message)
            self._stamp(wanted, holding)
            wanted.deleted_version = holding.deleted_version
            outcomes = await self._copies.put(census, census.leaders, wanted)
        return CreateGroupResponse(
            status=overall(outcomes), outcomes=outcomes, group=_view(census.holding(request.name))
        )

    async def change(self, request: ChangeGroupRequest) -> ChangeGroupResponse:
        check_group_name(request.name)
        if not request.settings.ListFields():
            raise Refused(Code.BAD_REQUEST, "nothing to change was given")
        async with self._copies.changing:
            census = await self._copies.census()
            holding = census.holding(request.name)
            if holding.live is None:
                raise census.unknown(Code.CONSUMER_GROUP_NOT_FOUND, "group", request.name)
            changed = Group()
            changed.CopyFrom(holding.live)
            _apply(request.settings, changed)
            self._stamp(changed, holding)
            outcomes = await self._copies.put(census, census.leaders, changed)
        return ChangeGroupResponse(
            status=overall(outcomes), outcomes=outcomes, group=_view(census.holding(request.name))
        )

    async def delete(self, request: DeleteGroupRequest) -> DeleteGroupResponse:
        check_group_name(request.name)
        async with self._copies.changing:
            census = await self._copies.census()
            holding = census.holding(request.name)
            if not holding.holders:
                raise census.unknown(Code.CONSUMER_GROUP_NOT_FOUND, "group", request.name)
            tombstone = Group(name=request.name, deleted=True)
            self._stamp(tombstone, holding)
            outcomes = await self._copies.put(census, {*holding.holders, *census.failures}, tombstone)
        return DeleteGroupResponse(status=overall(outcomes), outcomes=outcomes)

    async def list(self, request: ListGroupsRequest) -> ListGroupsResponse:
        census = await self._copies.census()
        if request.HasField("name"):
            check_group_name(request.name)
            views = [_view(census.holding(request.name))]
            if not census.holding(request.name).holders:
                raise census.unknown(Code.CONSUMER_GROUP_NOT_FOUND, "group", request.name)
            clients = await clients_of(self._cluster, census.leaders.values(), request.name)
            views[0].differing_subscriptions.extend(differing_subscriptions(clients))
        else:
            holdings = sorted(census.holdings.items())
            views = [_view(holding) for _, holding in holdings if holding.holders]
        failures = list(census.failures.values())
        return ListGroupsResponse(status=reading(failures), groups=views, failures=failures)

    def _stamp(self, definition: Group, holding: Holding[Group]) -> None:
        definition.changed_ms = self._clock.now_ms()
        definition.version = holding.next_version(definition.changed_ms)


def _apply(settings: GroupSettings, group: Group) -> None:
    """What is absent keeps its value. Raises Refused for what a group cannot have."""
    group.start = group.start or Start.START_FIRST  # groups of earlier versions do not say
    if settings.HasField("max_attempts"):
        group.retry.max_attempts = settings.max_attempts
    if settings.HasField("backoff"):
        _apply_backoff(settings.backoff, group.retry)
    if settings.HasField("order"):
        group.order = settings.order
    if settings.HasField("assignment"):
        group.assignment = settings.assignment
    if settings.HasField("start"):
        group.start = settings.start
        group.ClearField("start_ms")
    if settings.HasField("start_time"):
        if group.start != Start.START_TIME:
            raise Refused(Code.BAD_REQUEST, "a time to start at was given, but not that the group starts at a time")
        group.start_ms = _milliseconds(settings.start_time)
    if settings.HasField("lite"):
        _apply_lite(settings.lite, group)
    check_group(group)


def _apply_lite(lite: LiteGroup, group: Group) -> None:
    """The topic stays for good; that a group is lite, too."""
    if group.version and (not group.HasField("lite") or (lite.HasField("topic") and lite.topic != group.lite.topic)):
        raise Refused(Code.BAD_REQUEST, "whether a group is for lite topics, and of which topic, cannot change")
    topic = group.lite.topic if group.version else lite.topic
    group.lite.CopyFrom(LiteGroup(topic=topic, exclusive=lite.exclusive, subscription_quota=lite.subscription_quota))


def _apply_backoff(backoff: RetryPolicy, retry: RetryPolicy) -> None:
    """The number of attempts stays: after the last step of a customized backoff, its wait goes on to hold."""
    strategy = backoff.WhichOneof("strategy")
    if strategy is None or (strategy == "customized_backoff" and not backoff.customized_backoff.next):
        raise Refused(Code.BAD_REQUEST, "the backoff has neither steps nor a curve")
    max_attempts = retry.max_attempts
    retry.CopyFrom(backoff)
    retry.max_attempts = max_attempts


def _milliseconds(time: Timestamp) -> int:
    try:
        time_ms = time.ToMilliseconds()
    except ValueError:
        time_ms = 0
    if time_ms <= 0:
        raise Refused(Code.BAD_REQUEST, "the time to start at is not between 1970 and 9999")
    return time_ms


def _view(holding: Holding[Group]) -> GroupView:
    newest = holding.newest or Group()
    settings = GroupSettings(
        max_attempts=newest.retry.max_attempts,
        order=newest.order,
        assignment=newest.assignment,
        start=newest.start or Start.START_FIRST,
    )
    settings.backoff.CopyFrom(newest.retry)
    settings.backoff.ClearField("max_attempts")
    if newest.start == Start.START_TIME:
        settings.start_time.FromMilliseconds(newest.start_ms)
    if newest.HasField("lite"):
        settings.lite.CopyFrom(newest.lite)
    return GroupView(
        name=newest.name,
        settings=settings,
        version=newest.version,
        brokers=holding.agreeing,
        differing_brokers=holding.differing,
    )
