"""Consumer groups: created, changed, deleted and listed over all brokers."""

from __future__ import annotations

from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code
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
from kourou.protocol.kourou.log.v1.record_pb2 import Assignment, Group, Order
from kourou_admin.copies import GroupCopies
from kourou_admin.definitions import Holding, check_group_name
from kourou_admin.outcomes import overall, reading
from kourou_service.client_settings import DEFAULT_MAX_ATTEMPTS
from kourou_service.clock import Clock
from kourou_service.refusal import Refused

MAX_ATTEMPTS = 1000


class Groups:
    def __init__(self, copies: GroupCopies, clock: Clock) -> None:
        self._copies = copies
        self._clock = clock

    async def create(self, request: CreateGroupRequest) -> CreateGroupResponse:
        check_group_name(request.name)
        wanted = Group(name=request.name, order=Order.ORDER_CONCURRENT, assignment=Assignment.ASSIGNMENT_EXCLUSIVE)
        wanted.retry.max_attempts = DEFAULT_MAX_ATTEMPTS
        _apply(request.settings, wanted)
        async with self._copies.changing:
            census = await self._copies.census()
            holding = census.holding(request.name)
            if holding.holders:
                where = ", ".join(holding.holders)
                message = f"group {request.name.name} exists on {where} already; change it instead"
                raise Refused(Code.PRECONDITION_FAILED, message)
            self._stamp(wanted, holding)
            outcomes = await self._copies.put(census, census.leaders, wanted)
        return CreateGroupResponse(
            status=overall(outcomes), outcomes=outcomes, group=_view(census.holding(request.name))
        )

    async def change(self, request: ChangeGroupRequest) -> ChangeGroupResponse:
        check_group_name(request.name)
        if not request.settings.ListFields():
            raise Refused(Code.BAD_REQUEST, "nothing to change was given: the attempts, the order or the assignment")
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
        else:
            holdings = sorted(census.holdings.items())
            views = [_view(holding) for _, holding in holdings if holding.holders]
        failures = list(census.failures.values())
        return ListGroupsResponse(status=reading(failures), groups=views, failures=failures)

    def _stamp(self, definition: Group, holding: Holding[Group]) -> None:
        definition.changed_ms = self._clock.now_ms()
        definition.version = holding.next_version(definition.changed_ms)


def _apply(settings: GroupSettings, group: Group) -> None:
    """What is absent keeps its value."""
    if settings.HasField("max_attempts"):
        if not 1 <= settings.max_attempts <= MAX_ATTEMPTS:
            raise Refused(Code.BAD_REQUEST, f"{settings.max_attempts} attempts; 1 to {MAX_ATTEMPTS} can be")
        group.retry.max_attempts = settings.max_attempts
    if settings.HasField("order"):
        if settings.order not in (Order.ORDER_CONCURRENT, Order.ORDER_FIFO):
            raise Refused(Code.BAD_REQUEST, "the order has to be concurrent or fifo")
        group.order = settings.order
    if settings.HasField("assignment"):
        if settings.assignment not in (Assignment.ASSIGNMENT_EXCLUSIVE, Assignment.ASSIGNMENT_SHARED):
            raise Refused(Code.BAD_REQUEST, "the assignment has to be exclusive or shared")
        group.assignment = settings.assignment


def _view(holding: Holding[Group]) -> GroupView:
    newest = holding.newest or Group()
    settings = GroupSettings(max_attempts=newest.retry.max_attempts, order=newest.order, assignment=newest.assignment)
    return GroupView(
        name=newest.name,
        settings=settings,
        version=newest.version,
        brokers=holding.agreeing,
        differing_brokers=holding.differing,
    )
