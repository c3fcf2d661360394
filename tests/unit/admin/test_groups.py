from __future__ import annotations

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.google.protobuf.duration_pb2 import Duration
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    ChangeGroupRequest,
    CreateGroupRequest,
    DeleteGroupRequest,
    GroupSettings,
    ListGroupsRequest,
)
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_admin.copies import GroupCopies
from kourou_admin.groups import Groups
from kourou_service.client_settings import default_retry
from kourou_service.refusal import Refused
from tests.unit.admin.fake_cluster import OK, FakeClock, FakeNetwork


def steps(*seconds: int) -> v2.RetryPolicy:
    backoff = v2.CustomizedBackoff(next=[Duration(seconds=step) for step in seconds])
    return v2.RetryPolicy(customized_backoff=backoff)


def curve(initial_s: int, multiplier: float, max_s: int) -> v2.RetryPolicy:
    backoff = v2.ExponentialBackoff(
        initial=Duration(seconds=initial_s), multiplier=multiplier, max=Duration(seconds=max_s)
    )
    return v2.RetryPolicy(exponential_backoff=backoff)


READERS = v2.Resource(name="readers")


class World:
    def __init__(self) -> None:
        self.network = FakeNetwork("broker-a", "broker-b")
        cluster = self.network.cluster()
        self.copies = GroupCopies(cluster)
        self.groups = Groups(self.copies, FakeClock(), cluster)
        self.brokers = self.network.brokers


@pytest.fixture
def world() -> World:
    return World()


async def test_a_new_group_has_the_defaults_on_all_brokers(world: World) -> None:
    response = await world.groups.create(CreateGroupRequest(name=READERS))
    assert response.status.code == v2.OK
    assert response.group.settings == GroupSettings(
        max_attempts=16,
        order=record_pb2.ORDER_CONCURRENT,
        assignment=record_pb2.ASSIGNMENT_EXCLUSIVE,
        backoff=default_retry(0),
        start=record_pb2.START_FIRST,
    )
    assert list(response.group.brokers) == ["broker-a", "broker-b"]
    with pytest.raises(Refused, match="exists"):
        await world.groups.create(CreateGroupRequest(name=READERS))


async def test_a_change_keeps_what_is_absent(world: World) -> None:
    settings = GroupSettings(
        max_attempts=3, order=record_pb2.ORDER_FIFO, backoff=steps(1, 5), start=record_pb2.START_LAST
    )
    await world.groups.create(CreateGroupRequest(name=READERS, settings=settings))
    change = ChangeGroupRequest(name=READERS, settings=GroupSettings(assignment=record_pb2.ASSIGNMENT_SHARED))
    response = await world.groups.change(change)
    assert response.group.settings == GroupSettings(
        max_attempts=3,
        order=record_pb2.ORDER_FIFO,
        assignment=record_pb2.ASSIGNMENT_SHARED,
        backoff=steps(1, 5),
        start=record_pb2.START_LAST,
    )
    with pytest.raises(Refused, match="nothing to change"):
        await world.groups.change(ChangeGroupRequest(name=READERS))


async def test_backoff_and_attempts_change_apart(world: World) -> None:
    await world.groups.create(CreateGroupRequest(name=READERS, settings=GroupSettings(backoff=steps(1, 5))))
    for changed in (
        GroupSettings(max_attempts=40),
        GroupSettings(backoff=curve(1, 2, 60)),
        GroupSettings(max_attempts=2),
    ):
        response = await world.groups.change(ChangeGroupRequest(name=READERS, settings=changed))
        assert response.status.code == v2.OK
    held = world.brokers["broker-a"].groups["readers"].retry
    assert held.max_attempts == 2
    assert held.exponential_backoff == curve(1, 2, 60).exponential_backoff
    assert response.group.settings.backoff == curve(1, 2, 60)


async def test_a_group_starts_somewhere_else(world: World) -> None:
    time = Timestamp(seconds=1_700_000_000, nanos=5_000_000)
    settings = GroupSettings(start=record_pb2.START_TIME, start_time=time)
    response = await world.groups.create(CreateGroupRequest(name=READERS, settings=settings))
    assert (response.group.settings.start, response.group.settings.start_time) == (record_pb2.START_TIME, time)
    assert world.brokers["broker-b"].groups["readers"].start_ms == 1_700_000_000_005
    later = GroupSettings(start_time=Timestamp(seconds=1_800_000_000))
    await world.groups.change(ChangeGroupRequest(name=READERS, settings=later))
    assert world.brokers["broker-b"].groups["readers"].start_ms == 1_800_000_000_000
    last = GroupSettings(start=record_pb2.START_LAST)
    response = await world.groups.change(ChangeGroupRequest(name=READERS, settings=last))
    assert not response.group.settings.HasField("start_time")
    assert world.brokers["broker-b"].groups["readers"].start_ms == 0


async def test_a_group_of_an_earlier_version_can_be_changed(world: World) -> None:
    made = record_pb2.Group(
        name=READERS,
        version=7,
        order=record_pb2.ORDER_CONCURRENT,
        assignment=record_pb2.ASSIGNMENT_SHARED,
        retry=default_retry(5),
    )
    world.brokers["broker-a"].groups["readers"] = made
    response = await world.groups.change(ChangeGroupRequest(name=READERS, settings=GroupSettings(max_attempts=6)))
    assert response.group.settings.start == record_pb2.START_FIRST
    assert response.group.settings.backoff == default_retry(0)


@pytest.mark.parametrize(
    ("name", "settings", "code"),
    [
        ("a b", GroupSettings(), v2.ILLEGAL_CONSUMER_GROUP),
        ("g" * 121, GroupSettings(), v2.ILLEGAL_CONSUMER_GROUP),
        ("%RETRY%g", GroupSettings(), v2.ILLEGAL_CONSUMER_GROUP),
        ("g", GroupSettings(max_attempts=0), v2.BAD_REQUEST),
        ("g", GroupSettings(max_attempts=1001), v2.BAD_REQUEST),
        ("g", GroupSettings(order=record_pb2.ORDER_UNSPECIFIED), v2.BAD_REQUEST),
        ("g", GroupSettings(assignment=9), v2.BAD_REQUEST),  # type: ignore[arg-type]
        ("g", GroupSettings(start=9), v2.BAD_REQUEST),  # type: ignore[arg-type]
        ("g", GroupSettings(start=record_pb2.START_UNSPECIFIED), v2.BAD_REQUEST),
        ("g", GroupSettings(start=record_pb2.START_TIME), v2.BAD_REQUEST),
        ("g", GroupSettings(start=record_pb2.START_LAST, start_time=Timestamp(seconds=1)), v2.BAD_REQUEST),
        ("g", GroupSettings(start_time=Timestamp(seconds=1)), v2.BAD_REQUEST),
        ("g", GroupSettings(start=record_pb2.START_TIME, start_time=Timestamp(seconds=-1)), v2.BAD_REQUEST),
        ("g", GroupSettings(start=record_pb2.START_TIME, start_time=Timestamp(seconds=10**17)), v2.BAD_REQUEST),
        ("g", GroupSettings(backoff=v2.RetryPolicy(max_attempts=3)), v2.BAD_REQUEST),
        ("g", GroupSettings(backoff=steps()), v2.BAD_REQUEST),
        ("g", GroupSettings(backoff=steps(1, 13 * 3600)), v2.BAD_REQUEST),
        ("g", GroupSettings(backoff=steps(-1)), v2.BAD_REQUEST),
        ("g", GroupSettings(backoff=steps(*[1] * 1001)), v2.BAD_REQUEST),
        ("g", GroupSettings(backoff=curve(10, 2, 1)), v2.BAD_REQUEST),
        ("g", GroupSettings(backoff=curve(1, 0, 10)), v2.BAD_REQUEST),
        ("g", GroupSettings(backoff=curve(1, float("nan"), 10)), v2.BAD_REQUEST),
        ("g", GroupSettings(backoff=curve(1, float("inf"), 10)), v2.BAD_REQUEST),
    ],
)
async def test_illegal_groups_are_refused(world: World, name: str, settings: GroupSettings, code: int) -> None:
    with pytest.raises(Refused) as refused:
        await world.groups.create(CreateGroupRequest(name=v2.Resource(name=name), settings=settings))
    assert refused.value.code == code


async def test_delete_and_list(world: World) -> None:
    await world.groups.create(CreateGroupRequest(name=READERS))
    assert [group.name.name for group in (await world.groups.list(ListGroupsRequest())).groups] == ["readers"]
    await world.groups.delete(DeleteGroupRequest(name=READERS))
    assert not (await world.groups.list(ListGroupsRequest())).groups
    for call in (
        world.groups.delete(DeleteGroupRequest(name=READERS)),
        world.groups.list(ListGroupsRequest(name=READERS)),
        world.groups.change(ChangeGroupRequest(name=READERS, settings=GroupSettings(max_attempts=2))),
    ):
        with pytest.raises(Refused) as refused:
            await call
        assert refused.value.code == v2.CONSUMER_GROUP_NOT_FOUND


async def test_a_group_that_one_broker_made_by_itself_gets_to_all(world: World) -> None:
    made = record_pb2.Group(name=READERS, version=7)
    made.retry.max_attempts = 16
    world.brokers["broker-a"].groups["readers"] = made
    assert [outcome.broker for outcome in await world.copies.level()] == ["broker-b"]
    assert world.brokers["broker-b"].groups["readers"].version == 7
    assert await world.copies.level() == []


def member(client_id: str, last_seen_ms: int = 0, group: str = "readers", **topics: str) -> broker_pb2.Client:
    subscriptions = [
        v2.SubscriptionEntry(
            topic=v2.Resource(name=topic), expression=v2.FilterExpression(type=v2.TAG, expression=text)
        )
        for topic, text in topics.items()
    ]
    return broker_pb2.Client(
        client_id=client_id, last_seen_ms=last_seen_ms, group=v2.Resource(name=group), subscriptions=subscriptions
    )


async def shown_differences(
    world: World, **clients: list[broker_pb2.Client]
) -> list[tuple[str, str | None, list[str]]]:
    """clients: by broker, with _ for -."""
    for name, known in clients.items():
        broker = world.brokers[name.replace("_", "-")]
        answer = broker_pb2.ListClientsResponse(status=OK, clients=known)
        broker.answers[broker_rpc.LIST_CLIENTS.path] = lambda _, answer=answer: answer
    [group] = (await world.groups.list(ListGroupsRequest(name=READERS))).groups
    return [
        (each.topic.name, each.expression.expression if each.HasField("expression") else None, list(each.client_ids))
        for each in group.differing_subscriptions
    ]


async def test_a_group_shows_how_its_members_differ(world: World) -> None:
    await world.groups.create(CreateGroupRequest(name=READERS))
    assert await shown_differences(world) == []
    alike = [member("1", orders="a || b"), member("2", orders="b || a"), member("x", group="others", orders="z")]
    assert await shown_differences(world, broker_a=alike, broker_b=alike) == []
    changed = member("2", 7, orders="c", others="*")
    assert await shown_differences(world, broker_a=alike, broker_b=[changed, member("3", orders="a||b")]) == [
        ("orders", "a || b", ["1", "3"]),
        ("orders", "c", ["2"]),
        ("others", None, ["1", "3"]),
        ("others", "*", ["2"]),
    ]
    world.brokers["broker-b"].down = True
    assert await shown_differences(world) == []
    assert not (await world.groups.list(ListGroupsRequest())).groups[0].differing_subscriptions
