"""What the admin service collects from the brokers without changing definitions."""

from __future__ import annotations

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    BrokerQueueOffset,
    DescribeProgressRequest,
    FindMessagesRequest,
    GetRouteRequest,
    ListBrokersRequest,
    ListClientsRequest,
    ResetOffsetRequest,
    SetBrokerPermissionRequest,
)
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_admin.brokers import Brokers
from kourou_admin.messages import Messages
from kourou_admin.progress import Progress
from kourou_service.refusal import Refused
from tests.unit.admin.fake_cluster import OK, FakeClock, FakeNetwork

TOPIC, GROUP = v2.Resource(name="flights"), v2.Resource(name="readers")


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork("broker-a", "broker-b")


async def test_brokers_with_their_descriptions(network: FakeNetwork) -> None:
    network.brokers["broker-b"].down = True
    response = await Brokers(network.cluster()).list(ListBrokersRequest())
    first, second = response.brokers
    assert (first.info.name, first.reachable.code, first.description.permission) == ("broker-a", v2.OK, v2.READ_WRITE)
    assert (second.info.name, second.reachable.code) == ("broker-b", v2.HA_NOT_AVAILABLE)
    assert not second.HasField("description")
    assert "broker-b" in response.status.message


async def test_permission_of_one_broker(network: FakeNetwork) -> None:
    broker = network.brokers["broker-b"]
    broker.answers[broker_rpc.SET_PERMISSION.path] = lambda _: broker_pb2.SetPermissionResponse(status=OK)
    request = SetBrokerPermissionRequest(broker="broker-b", permission=v2.READ)
    response = await Brokers(network.cluster()).set_permission(request)
    assert response.status.code == v2.OK
    assert broker.asked == [(broker_rpc.SET_PERMISSION.path, broker_pb2.SetPermissionRequest(permission=v2.READ))]
    assert not network.brokers["broker-a"].asked
    for wrong in (
        SetBrokerPermissionRequest(broker="broker-z", permission=v2.READ),
        SetBrokerPermissionRequest(broker="broker-a"),
        SetBrokerPermissionRequest(permission=v2.READ),
    ):
        with pytest.raises(Refused):
            await Brokers(network.cluster()).set_permission(wrong)


async def test_route(network: FakeNetwork) -> None:
    network.routes["flights"] = [v2.MessageQueue(topic=TOPIC, id=0)]
    brokers = Brokers(network.cluster())
    assert len((await brokers.route(GetRouteRequest(topic=TOPIC))).message_queues) == 1
    with pytest.raises(Refused) as refused:
        await brokers.route(GetRouteRequest(topic=v2.Resource(name="other")))
    assert refused.value.code == v2.TOPIC_NOT_FOUND


async def test_clients_by_group(network: FakeNetwork) -> None:
    for broker in network.brokers.values():
        groups = ("g", "readers")
        clients = [broker_pb2.Client(client_id=f"{group}-1", group=v2.Resource(name=group)) for group in groups]
        answer = broker_pb2.ListClientsResponse(status=OK, clients=clients)
        broker.answers[broker_rpc.LIST_CLIENTS.path] = lambda _, answer=answer: answer
    brokers = Brokers(network.cluster())
    assert len((await brokers.clients(ListClientsRequest())).clients) == 4
    mine = (await brokers.clients(ListClientsRequest(group=GROUP))).clients
    assert [(entry.client.client_id, entry.broker) for entry in mine] == [
        ("readers-1", "broker-a"),
        ("readers-1", "broker-b"),
    ]


async def test_progress_of_all_brokers(network: FakeNetwork) -> None:
    network.brokers["broker-a"].answers[broker_rpc.DESCRIBE_QUEUES.path] = lambda _: broker_pb2.DescribeQueuesResponse(
        status=OK, queues=[broker_pb2.Queue(topic=TOPIC, id=1, next_offset=9), broker_pb2.Queue(topic=TOPIC, id=0)]
    )
    # The other broker does not have the topic: that is no failure.
    network.brokers["broker-b"].answers[broker_rpc.DESCRIBE_QUEUES.path] = lambda _: broker_pb2.DescribeQueuesResponse(
        status=v2.Status(code=v2.TOPIC_NOT_FOUND)
    )
    response = await Progress(network.cluster()).describe(DescribeProgressRequest(topic=TOPIC, group=GROUP))
    assert response.status.code == v2.OK
    assert [(entry.broker, entry.queue.id) for entry in response.queues] == [("broker-a", 0), ("broker-a", 1)]


async def test_unknown_everywhere_is_not_found(network: FakeNetwork) -> None:
    for broker in network.brokers.values():
        broker.answers[broker_rpc.DESCRIBE_QUEUES.path] = lambda _: broker_pb2.DescribeQueuesResponse(
            status=v2.Status(code=v2.CONSUMER_GROUP_NOT_FOUND)
        )
    with pytest.raises(Refused) as refused:
        await Progress(network.cluster()).describe(DescribeProgressRequest(group=GROUP))
    assert refused.value.code == v2.CONSUMER_GROUP_NOT_FOUND
    # One that is away may hold it.
    network.brokers["broker-b"].down = True
    with pytest.raises(Refused) as refused:
        await Progress(network.cluster()).describe(DescribeProgressRequest(group=GROUP))
    assert refused.value.code == v2.HA_NOT_AVAILABLE


async def test_reset_on_all_brokers_or_one(network: FakeNetwork) -> None:
    for broker in network.brokers.values():
        broker.answers[broker_rpc.RESET_OFFSET.path] = lambda _: broker_pb2.ResetOffsetResponse(
            status=OK, offsets=[broker_pb2.QueueOffset(queue=0, offset=4)]
        )
    progress = Progress(network.cluster())
    response = await progress.reset(ResetOffsetRequest(group=GROUP, topic=TOPIC, first=True))
    assert response.status.code == v2.OK
    assert list(response.offsets) == [
        BrokerQueueOffset(broker="broker-a", queue=0, offset=4),
        BrokerQueueOffset(broker="broker-b", queue=0, offset=4),
    ]
    one = ResetOffsetRequest(group=GROUP, topic=TOPIC, time=Timestamp(seconds=5), broker="broker-b", queue=3)
    await progress.reset(one)
    assert len(network.brokers["broker-a"].asked) == 1
    _, order = network.brokers["broker-b"].asked[-1]
    assert order == broker_pb2.ResetOffsetRequest(group=GROUP, topic=TOPIC, queue=3, time=Timestamp(seconds=5))
    for wrong in (
        ResetOffsetRequest(group=GROUP, topic=TOPIC),
        ResetOffsetRequest(group=GROUP, topic=TOPIC, offset=-1),
        ResetOffsetRequest(group=GROUP, topic=TOPIC, last=False),
        ResetOffsetRequest(group=v2.Resource(name="a b"), topic=TOPIC, first=True),
        ResetOffsetRequest(group=GROUP, topic=v2.Resource(name=""), first=True),
    ):
        with pytest.raises(Refused):
            await progress.reset(wrong)


def found(offset: int, stored_s: int) -> broker_pb2.FoundMessage:
    system = v2.SystemProperties(queue_offset=offset, store_timestamp=Timestamp(seconds=stored_s))
    return broker_pb2.FoundMessage(message=v2.Message(topic=TOPIC, system_properties=system))


async def test_messages_in_order_of_their_time(network: FakeNetwork) -> None:
    stored = {"broker-a": [found(0, 30), found(1, 50)], "broker-b": [found(0, 40)]}
    for name, broker in network.brokers.items():
        answer = broker_pb2.FindMessagesResponse(status=OK, messages=stored[name])
        broker.answers[broker_rpc.FIND_MESSAGES.path] = lambda _, answer=answer: answer
    messages = Messages(network.cluster(), FakeClock())
    response = await messages.find(FindMessagesRequest(topic=TOPIC, key="k", limit=2))
    assert [entry.broker for entry in response.messages] == ["broker-a", "broker-b"]
    span = broker_pb2.TimeSpan(begin=Timestamp(seconds=1))
    await messages.find(FindMessagesRequest(topic=TOPIC, time=span))
    _, question = network.brokers["broker-a"].asked[-1]
    assert isinstance(question, broker_pb2.FindMessagesRequest)
    assert question.time.end == Timestamp(seconds=1000)
    assert question.limit == 64


async def test_an_offset_message_id_goes_to_its_broker(network: FakeNetwork) -> None:
    for broker in network.brokers.values():
        broker.answers[broker_rpc.FIND_MESSAGES.path] = lambda _: broker_pb2.FindMessagesResponse(status=OK)
    messages = Messages(network.cluster(), FakeClock())
    with pytest.raises(Refused) as refused:
        await messages.find(FindMessagesRequest(offset_message_id="broker-b@1f40.3"))
    assert refused.value.code == v2.MESSAGE_NOT_FOUND
    _, question = network.brokers["broker-b"].asked[-1]
    assert isinstance(question, broker_pb2.FindMessagesRequest)
    assert question.log_position == broker_pb2.LogPosition(position=0x1F40, index=3)
    assert not network.brokers["broker-a"].asked


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (FindMessagesRequest(offset_message_id="broker-a@xyz.3"), v2.ILLEGAL_MESSAGE_ID),
        (FindMessagesRequest(offset_message_id="broker-z@1.3"), v2.NOT_FOUND),
        (FindMessagesRequest(key="k"), v2.ILLEGAL_TOPIC),
        (FindMessagesRequest(topic=TOPIC), v2.BAD_REQUEST),
        (FindMessagesRequest(topic=TOPIC, key=""), v2.BAD_REQUEST),
        (FindMessagesRequest(topic=TOPIC, key="k", limit=257), v2.BAD_REQUEST),
        (FindMessagesRequest(topic=TOPIC, time=broker_pb2.TimeSpan(begin=Timestamp(seconds=2000))), v2.BAD_REQUEST),
    ],
)
async def test_senseless_searches_are_refused(network: FakeNetwork, request_: FindMessagesRequest, code: int) -> None:
    with pytest.raises(Refused) as refused:
        await Messages(network.cluster(), FakeClock()).find(request_)
    assert refused.value.code == code
