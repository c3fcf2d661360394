from __future__ import annotations

import asyncio

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    ChangeTopicRequest,
    CreateTopicRequest,
    DeleteTopicRequest,
    ListTopicsRequest,
)
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_admin import cluster
from kourou_admin.copies import TopicCopies
from kourou_admin.topics import Topics
from kourou_service.refusal import Refused
from tests.unit.admin.fake_cluster import FakeClock, FakeNetwork

FLIGHTS = v2.Resource(name="flights")


class World:
    def __init__(self, *brokers: str) -> None:
        self.network = FakeNetwork(*brokers)
        self.clock = FakeClock()
        found = self.network.cluster()
        self.copies = TopicCopies(found)
        self.topics = Topics(found, self.copies, self.clock)
        self.brokers = self.network.brokers

    def versions(self) -> dict[str, int]:
        held = {name: broker.topics.get("flights") for name, broker in self.brokers.items()}
        return {name: topic.version for name, topic in held.items() if topic is not None}


@pytest.fixture
def world() -> World:
    return World("broker-a", "broker-b")


async def refusal_of(call: object) -> Refused:
    with pytest.raises(Refused) as refused:
        await call  # type: ignore[misc]
    return refused.value


async def test_a_topic_is_created_on_all_brokers(world: World) -> None:
    response = await world.topics.create(CreateTopicRequest(name=FLIGHTS))
    assert response.status.code == v2.OK
    assert [outcome.broker for outcome in response.outcomes] == ["broker-a", "broker-b"]
    assert response.topic.queues == 8
    assert response.topic.type == v2.NORMAL
    assert list(response.topic.brokers) == ["broker-a", "broker-b"]
    assert world.versions() == {"broker-a": 1_000_001, "broker-b": 1_000_001}


async def test_a_topic_is_created_when_the_name_server_shows_it(world: World) -> None:
    world.network.routes["flights"] = [v2.MessageQueue(broker=v2.Broker(name="broker-a"))]
    creating = asyncio.create_task(world.topics.create(CreateTopicRequest(name=FLIGHTS)))
    while len(world.versions()) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    assert not creating.done()
    del world.network.routes["flights"]
    assert (await asyncio.wait_for(creating, 1)).status.code == v2.OK


async def test_a_topic_that_no_name_server_shows_is_created_nevertheless(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ROUTE_WAIT_S", 0.05)
    world.network.routes["flights"] = []
    assert (await world.topics.create(CreateTopicRequest(name=FLIGHTS))).status.code == v2.OK


async def test_an_existing_topic_is_refused(world: World) -> None:
    await world.topics.create(CreateTopicRequest(name=FLIGHTS))
    refused = await refusal_of(world.topics.create(CreateTopicRequest(name=FLIGHTS)))
    assert refused.code == v2.PRECONDITION_FAILED
    assert "exists on broker-a, broker-b" in refused.message


async def test_a_topic_on_one_broker_is_extended_to_another(world: World) -> None:
    await world.topics.create(CreateTopicRequest(name=FLIGHTS, queues=4, brokers=["broker-a"]))
    assert world.versions() == {"broker-a": 1_000_001}
    other = CreateTopicRequest(name=FLIGHTS, queues=5, brokers=["broker-b"])
    assert (await refusal_of(world.topics.create(other))).code == v2.PRECONDITION_FAILED
    response = await world.topics.create(CreateTopicRequest(name=FLIGHTS, queues=4, brokers=["broker-b"]))
    assert list(response.topic.brokers) == ["broker-a", "broker-b"]
    assert not response.topic.differing_brokers


async def test_partial_success_is_reported(world: World) -> None:
    world.brokers["broker-b"].down = True
    response = await world.topics.create(CreateTopicRequest(name=FLIGHTS))
    assert response.status.code == v2.MULTIPLE_RESULTS
    assert "broker-b" in response.status.message
    assert [outcome.status.code for outcome in response.outcomes] == [v2.OK, v2.HA_NOT_AVAILABLE]
    assert list(response.topic.brokers) == ["broker-a"]


async def test_after_a_partial_success_the_way_out_is_told(world: World) -> None:
    world.brokers["broker-b"].down = True
    await world.topics.create(CreateTopicRequest(name=FLIGHTS))
    world.brokers["broker-b"].down = False
    refused = await refusal_of(world.topics.create(CreateTopicRequest(name=FLIGHTS)))
    assert "to have it on broker-b too, name the broker" in refused.message


async def test_all_brokers_down_is_the_first_failure(world: World) -> None:
    for broker in world.brokers.values():
        broker.down = True
    response = await world.topics.create(CreateTopicRequest(name=FLIGHTS))
    assert response.status.code == v2.HA_NOT_AVAILABLE
    listed = await world.topics.list(ListTopicsRequest())
    assert listed.status.code == v2.MULTIPLE_RESULTS
    assert [failure.broker for failure in listed.failures] == ["broker-a", "broker-b"]
    refused = await refusal_of(world.topics.delete(DeleteTopicRequest(name=FLIGHTS)))
    assert refused.code == v2.HA_NOT_AVAILABLE


async def test_no_brokers_is_a_clear_error() -> None:
    refused = await refusal_of(World().topics.create(CreateTopicRequest(name=FLIGHTS)))
    assert refused.code == v2.HA_NOT_AVAILABLE
    assert "no broker is registered" in refused.message


async def test_an_unknown_broker_is_named(world: World) -> None:
    refused = await refusal_of(world.topics.create(CreateTopicRequest(name=FLIGHTS, brokers=["broker-z"])))
    assert refused.code == v2.NOT_FOUND
    assert "broker-z" in refused.message
    assert "broker-a, broker-b" in refused.message


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (CreateTopicRequest(name=v2.Resource(name="a b")), v2.ILLEGAL_TOPIC),
        (CreateTopicRequest(name=v2.Resource(name="%DLQ%g")), v2.ILLEGAL_TOPIC),
        (CreateTopicRequest(), v2.ILLEGAL_TOPIC),
        (CreateTopicRequest(name=v2.Resource(name="a", resource_namespace="n%")), v2.BAD_REQUEST),
        (CreateTopicRequest(name=FLIGHTS, type=99), v2.BAD_REQUEST),  # type: ignore[arg-type]
        (CreateTopicRequest(name=FLIGHTS, queues=1025), v2.BAD_REQUEST),
        (CreateTopicRequest(name=FLIGHTS, queues=-1), v2.BAD_REQUEST),
    ],
)
async def test_illegal_topics_are_refused(world: World, request_: CreateTopicRequest, code: int) -> None:
    assert (await refusal_of(world.topics.create(request_))).code == code
    assert not world.versions()


async def test_queues_and_permission_change(world: World) -> None:
    await world.topics.create(CreateTopicRequest(name=FLIGHTS))
    response = await world.topics.change(ChangeTopicRequest(name=FLIGHTS, queues=16))
    assert response.status.code == v2.OK
    assert (response.topic.queues, response.topic.permission) == (16, v2.READ_WRITE)
    response = await world.topics.change(ChangeTopicRequest(name=FLIGHTS, permission=v2.READ))
    assert (response.topic.queues, response.topic.permission) == (16, v2.READ)
    # The clock stood still, the version did not.
    assert world.versions() == {"broker-a": 1_000_003, "broker-b": 1_000_003}


@pytest.mark.parametrize(
    "change",
    [ChangeTopicRequest(queues=7), ChangeTopicRequest(), ChangeTopicRequest(permission=v2.PERMISSION_UNSPECIFIED)],
)
async def test_senseless_changes_are_refused(world: World, change: ChangeTopicRequest) -> None:
    await world.topics.create(CreateTopicRequest(name=FLIGHTS))
    change.name.CopyFrom(FLIGHTS)
    assert (await refusal_of(world.topics.change(change))).code == v2.BAD_REQUEST


async def test_an_unknown_topic_is_not_changed_or_deleted(world: World) -> None:
    change = ChangeTopicRequest(name=FLIGHTS, queues=9)
    assert (await refusal_of(world.topics.change(change))).code == v2.TOPIC_NOT_FOUND
    assert (await refusal_of(world.topics.delete(DeleteTopicRequest(name=FLIGHTS)))).code == v2.TOPIC_NOT_FOUND
    assert (await refusal_of(world.topics.list(ListTopicsRequest(name=FLIGHTS)))).code == v2.TOPIC_NOT_FOUND


async def test_a_deleted_topic_leaves_a_tombstone_and_can_be_made_again(world: World) -> None:
    await world.topics.create(CreateTopicRequest(name=FLIGHTS, queues=16))
    await world.topics.delete(DeleteTopicRequest(name=FLIGHTS))
    assert all(broker.topics["flights"].deleted for broker in world.brokers.values())
    assert not (await world.topics.list(ListTopicsRequest())).topics
    # A clock that went back does not bring the version below that of the tombstone.
    world.clock.now -= 500_000
    response = await world.topics.create(CreateTopicRequest(name=FLIGHTS, queues=2))
    assert response.status.code == v2.OK
    assert response.topic.queues == 2
    assert world.versions() == {"broker-a": 1_000_003, "broker-b": 1_000_003}
    # Who missed both learns of the delete by this, also when more has changed.
    await world.topics.change(ChangeTopicRequest(name=FLIGHTS, queues=3))
    assert [broker.topics["flights"].deleted_version for broker in world.brokers.values()] == [1_000_002] * 2


async def test_a_broker_that_missed_changes_is_shown_and_brought_up_to_date(world: World) -> None:
    await world.topics.create(CreateTopicRequest(name=FLIGHTS))
    world.brokers["broker-b"].down = True
    changed = await world.topics.change(ChangeTopicRequest(name=FLIGHTS, queues=9))
    assert changed.status.code == v2.MULTIPLE_RESULTS
    world.brokers["broker-b"].down = False
    (topic,) = (await world.topics.list(ListTopicsRequest())).topics
    assert (list(topic.brokers), list(topic.differing_brokers), topic.queues) == (["broker-a"], ["broker-b"], 9)
    outcomes = await world.copies.level()
    assert [(outcome.broker, outcome.status.code) for outcome in outcomes] == [("broker-b", v2.OK)]
    (topic,) = (await world.topics.list(ListTopicsRequest())).topics
    assert list(topic.brokers) == ["broker-a", "broker-b"]
    assert await world.copies.level() == []


async def test_a_broker_that_missed_a_delete_gets_the_tombstone(world: World) -> None:
    await world.topics.create(CreateTopicRequest(name=FLIGHTS))
    world.brokers["broker-b"].down = True
    await world.topics.delete(DeleteTopicRequest(name=FLIGHTS))
    world.brokers["broker-b"].down = False
    (topic,) = (await world.topics.list(ListTopicsRequest())).topics
    assert (list(topic.brokers), list(topic.differing_brokers)) == ([], ["broker-b"])
    assert (await refusal_of(world.topics.create(CreateTopicRequest(name=FLIGHTS)))).code == v2.PRECONDITION_FAILED
    await world.copies.level()
    assert world.brokers["broker-b"].topics["flights"].deleted
    assert not (await world.topics.list(ListTopicsRequest())).topics


async def test_levelling_does_not_spread_a_topic(world: World) -> None:
    await world.topics.create(CreateTopicRequest(name=FLIGHTS, brokers=["broker-a"]))
    assert await world.copies.level() == []


async def test_a_change_that_lost_to_a_newer_one_is_told(world: World) -> None:
    broker = world.brokers["broker-b"]

    def newer(request: broker_pb2.PutTopicRequest) -> broker_pb2.PutTopicResponse:
        request.topic.version += 5
        return broker_pb2.PutTopicResponse(status=v2.Status(code=v2.OK), topic=request.topic)

    broker.answers[broker_rpc.PUT_TOPIC.path] = newer
    response = await world.topics.create(CreateTopicRequest(name=FLIGHTS))
    assert response.status.code == v2.MULTIPLE_RESULTS
    assert [outcome.status.code for outcome in response.outcomes] == [v2.OK, v2.PRECONDITION_FAILED]
