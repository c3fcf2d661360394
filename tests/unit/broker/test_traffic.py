"""What the broker counts of messages: each number after known actions."""

import asyncio

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_broker.operations.traffic import GroupTraffic, TopicTraffic, Traffic
from kourou_broker.state.definitions import Name
from tests.unit.broker.alone import MIB, Broker, handle, message, simulated


def of_topic(broker: Broker, name: str = "orders") -> TopicTraffic:
    return broker.core.traffic.of_topic(broker.core.state.topics[Name("", name)].id)


def of_group(broker: Broker) -> GroupTraffic:
    state = broker.core.state
    return broker.core.traffic.of_group(state.groups[Name("", "team")].id, state.topics[Name("", "orders")].id)


async def described(broker: Broker) -> broker_pb2.DescribeBrokerResponse:
    return await broker.doors.call(broker_rpc.DESCRIBE_BROKER, broker_pb2.DescribeBrokerRequest(), {})


@simulated
async def test_what_comes_and_goes_is_counted() -> None:
    broker = await Broker.started(queues=2)
    await asyncio.gather(broker.send_ids("a", "b"), broker.send_ids("c"))
    received = await broker.receive()
    assert await broker.ack(*received[:2]) == definition_pb2.OK

    assert of_topic(broker).messages == 3
    group = of_group(broker)
    assert (group.delivered, group.redelivered, group.acknowledged, group.dead_letters) == (3, 0, 2, 0)
    answer = await described(broker)
    assert (answer.stored_messages, answer.delivered_messages) == (3, 3)


@simulated
async def test_bytes_are_those_of_whole_messages() -> None:
    broker = await Broker.started()
    await broker.send(message(b"x" * 100))
    await broker.receive()
    came, went = of_topic(broker).size_bytes, of_group(broker).size_bytes
    assert came == went
    assert 100 < came < 200


@simulated
async def test_what_comes_again_is_told_apart() -> None:
    broker = await Broker.started()
    await broker.send_ids("a", "b")
    first = await broker.receive(invisible_s=1)
    await broker.ack(first[0])
    assert len(await broker.receive(wait_s=5)) == 1
    group = of_group(broker)
    assert (group.delivered, group.redelivered, group.acknowledged) == (3, 1, 1)


@simulated
async def test_an_acknowledgement_counts_once() -> None:
    broker = await Broker.started()
    await broker.send_ids("a")
    [received] = await broker.receive()
    await asyncio.gather(broker.ack(received), broker.ack_all(handle(received), handle(received)))
    assert of_group(broker).acknowledged == 1


@simulated
async def test_dead_letters_are_counted_for_the_topic_they_come_from() -> None:
    broker = await Broker.started(group={"max_attempts": 1})
    await broker.send_ids("late", "refused")
    for received in await broker.receive(invisible_s=1):
        if received.system_properties.message_id == "refused":
            assert await broker.forward(handle(received)) == definition_pb2.OK
    assert await broker.receive(wait_s=5) == []
    assert of_group(broker).dead_letters == 2
    assert of_group(broker).acknowledged == 0
    assert of_topic(broker, "%DLQ%team").messages == 2


@simulated
async def test_what_is_read_by_offset_is_delivered_too() -> None:
    broker = await Broker.started()
    await broker.send_ids("a", "b")
    await broker.pull()
    assert of_group(broker).delivered == 2
    assert of_group(broker).size_bytes == of_topic(broker).size_bytes
    assert (await described(broker)).delivered_messages == 2


@simulated
async def test_refused_sends_are_counted_by_their_code() -> None:
    broker = await Broker.started()
    assert (await broker.send(message(b""))).status.code == definition_pb2.MESSAGE_BODY_EMPTY
    await broker.send(message(topic="unknown"))
    await broker.send(message(topic="unknown"))
    assert broker.core.traffic.refused_sends == {
        definition_pb2.MESSAGE_BODY_EMPTY: 1,
        definition_pb2.TOPIC_NOT_FOUND: 2,
    }
    assert broker.core.traffic.stored == 0


@simulated
async def test_the_deleted_are_forgotten() -> None:
    broker = await Broker.started()
    await broker.send_ids("a")
    await broker.receive()
    await broker.put_group("team", version=2, deleted=True)
    assert not broker.core.traffic.groups
    await broker.put_topic("orders", version=2, deleted=True)
    assert not broker.core.traffic.topics
    assert broker.core.traffic.stored == 1, "the sum stays"


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([1024, 1025], [1, 1, 0, 0, 0, 0, 0]),
        ([5 * MIB], [0, 0, 0, 0, 0, 0, 1]),
        ([2000, 3000, 4096], [0, 3, 0, 0, 0, 0, 0]),
    ],
)
def test_sizes_fall_into_their_buckets(lengths: list[int], sizes: list[int]) -> None:
    traffic = Traffic().of_topic(1)
    traffic.add(lengths, sum(lengths))
    assert traffic.sizes.counts == sizes
    assert traffic.sizes.sum == traffic.size_bytes == sum(lengths)
