"""What became of a message in a lite topic, also when that is gone and its queue has another name."""

import asyncio

import pytest

from kourou.protocol.kourou.broker.v1 import broker_pb2
from tests.unit.broker.alone import MIB, Broker, message, simulated
from tests.unit.broker.lite import lite_broker, lite_topics, names, send, subscribe
from tests.unit.broker.test_explaining import find, kinds, story_of

PB = broker_pb2


async def started() -> Broker:
    broker = await lite_broker(topic={"lite_expiration_minutes": 30}, snapshot_every_bytes=MIB)
    await subscribe(broker, "c1", "a b")
    return broker


async def expire(broker: Broker) -> None:
    """All lite topics; those who subscribe have to say so anew."""
    await asyncio.sleep(40 * 60)
    await broker.core.lite_store.sweep()
    assert names(broker) == ""


async def team(broker: Broker, message_id: str) -> broker_pb2.GroupStory:
    (group,) = (await story_of(broker, message_id)).groups
    return group


@simulated
async def test_the_story_names_the_lite_topic() -> None:
    broker = await started()
    await send(broker, "a1 a2 b1")
    (first, *_rest) = await broker.receive(client="c1", batch_size=1)
    story = await story_of(broker, "a1")
    assert story.message.system_properties.lite_topic == "a"
    assert story.groups[0].waits_for.startswith("lent to c1 for another ")
    await broker.ack(first)
    assert ((await team(broker, "a1")).fate, kinds(await team(broker, "a1"))) == (
        PB.FATE_CONSUMED,
        ["LEASED", "ACKNOWLEDGED"],
    )
    assert (await team(broker, "a2")).waits_for == "it is the next of its queue"
    assert (await team(broker, "b1")).waits_for == "the group has read nothing from this queue yet"


@simulated
@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("sealed", [False, True])
async def test_an_expired_lite_topic_whose_queue_another_takes(reused: bool, sealed: bool) -> None:
    broker = await started()
    await send(broker, "a1 a2 a3")
    await broker.ack(*await broker.receive(client="c1", batch_size=1))
    assert len(await broker.receive(client="c1", batch_size=1, invisible_s=3600)) == 1
    queue = lite_topics(broker).by_name["a"].queue.id
    await expire(broker)
    if reused:
        await subscribe(broker, "c1", "b")
        await send(broker, "b1 b2")
        assert lite_topics(broker).by_name["b"].queue.id == queue
        for received in await broker.receive(client="c1", batch_size=2):
            await broker.ack(received)
    if sealed:
        await broker.put_topic("fill")
        while len(broker.core.log.segments()) < 3:
            await broker.send(message(b"x" * 200_000, topic="fill"))
    stories = {id_: await story_of(broker, id_) for id_ in ("a1", "a2", "a3")}
    for story in stories.values():
        assert kinds(story) == ["STORED", "EXPIRED"]
        assert story.events[1].note == "no message came to its lite topic for too long"
    told = {id_: [(group.fate, kinds(group)) for group in story.groups] for id_, story in stories.items()}
    assert told["a1"] == [(PB.FATE_CONSUMED, ["LEASED", "ACKNOWLEDGED"])]
    assert told["a2"] == [(PB.FATE_EXPIRED, ["LEASED", "EXPIRED"])]
    assert told["a3"] == ([(PB.FATE_EXPIRED, ["EXPIRED"])] if reused else [])  # else nobody reads the topic any more
    assert not any(group.waits_for for story in stories.values() for group in story.groups)
    assert await find(broker, "a3", "orders") == []
    if reused:
        assert kinds(await team(broker, "b1")) == ["LEASED", "ACKNOWLEDGED"]
        assert len(await find(broker, "b1", "orders")) == 1
