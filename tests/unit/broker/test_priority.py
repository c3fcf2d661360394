"""PRIORITY topics: a queue is a level, and the highest is read first."""

import asyncio
from typing import Any

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from tests.unit.broker.alone import Broker, Message, attempt, handle, ids, message, simulated, until

Code = definition_pb2.Code


async def priority_broker(*, levels: int = 3, **group: Any) -> Broker:
    broker = Broker()
    await broker.shard.start()
    await broker.put_topic("orders", levels, type=definition_pb2.PRIORITY)
    await broker.put_group("team", **group)
    return broker


def urgent(priority: int, id_: str = "") -> Message:
    return message(id_=id_ or f"p{priority}", priority=priority, message_type=definition_pb2.PRIORITY)


async def send(broker: Broker, *priorities: int) -> None:
    for priority in priorities:
        answer = await broker.send(urgent(priority))
        assert answer.status.code == Code.OK, answer.status


@simulated
async def test_the_highest_level_comes_first_and_its_oldest_message() -> None:
    broker = await priority_broker()
    for number, priority in enumerate((0, 2, 1, 0, 2, 1)):
        await broker.send(urgent(priority, f"{priority}-{number}"))
    assert ids(await broker.receive(batch_size=3)) == ["2-1", "2-4", "1-2"]
    await broker.send(urgent(2, "2-6"))
    assert ids(await broker.receive(batch_size=1)) == ["2-6"]
    assert ids(await broker.receive()) == ["1-5", "0-0", "0-3"]


@simulated
async def test_priorities_above_the_highest_level_belong_to_it() -> None:
    broker = await priority_broker(levels=2)
    await send(broker, 0, 1, 7, 2**31 - 1)
    assert [len((await broker.pull(queue=level))[0]) for level in (0, 1)] == [1, 3]
    [lowest] = (await broker.pull(queue=0))[0]
    assert lowest.system_properties.message_type == definition_pb2.PRIORITY
    assert lowest.system_properties.priority == 0


@simulated
async def test_what_comes_again_comes_before_lower_levels() -> None:
    broker = await priority_broker()
    await send(broker, 2, 0)
    [first] = await broker.receive(batch_size=1)
    await broker.change(handle(first), 0)
    again, lowest = await broker.receive()
    assert (ids([again, lowest]), attempt(again)) == (["p2", "p0"], 2)


@simulated
async def test_members_of_a_group_compete_for_all_levels() -> None:
    broker = await priority_broker()
    for member in ("member-1", "member-2"):
        broker.connect(member)
    await until(lambda: broker.members() == ["member-1", "member-2"])
    for member in ("member-1", "member-2"):
        assert await broker.assigned(member) == [-1]
    await send(broker, 0, 2, 1)
    fields: dict[str, Any] = {"auto_renew": True, "invisible_s": None, "batch_size": 1}
    assert ids(await broker.receive(client="member-2", **fields)) == ["p2"]
    assert ids(await broker.receive(client="member-1", **fields)) == ["p1"]
    assert ids(await broker.receive(client="member-2", **fields)) == ["p0"]
    waiting = asyncio.ensure_future(broker.receive(client="member-1", wait_s=20, **fields))
    await asyncio.sleep(1)
    await broker.send(urgent(1, "late"))
    assert ids(await waiting) == ["late"]


@pytest.mark.parametrize("how", ["restart", "crash"])
@simulated
async def test_levels_outlive_a_start(how: str) -> None:
    broker = await priority_broker()
    await send(broker, 0, 1, 2)
    await broker.ack(*await broker.receive(batch_size=1))
    await getattr(broker, how)()
    assert ids(await broker.receive(wait_s=1)) == ["p1", "p0"]


@simulated
async def test_bad_priorities_are_refused() -> None:
    broker = await priority_broker()
    for sent, code in (
        ([urgent(-1)], Code.BAD_REQUEST),
        ([urgent(0), urgent(2)], Code.BAD_REQUEST),
        ([message()], Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        ([message(priority=1, message_group="a")], Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
    ):
        answer = await broker.send(*sent)
        assert answer.status.code == code, answer.status
    assert not await broker.receive()
    assert (await broker.send(urgent(2, "a"), urgent(5, "b"))).status.code == Code.OK, "both are of the highest level"
    assert ids(await broker.receive()) == ["a", "b"]


@simulated
async def test_a_priority_message_to_a_normal_topic_is_refused() -> None:
    broker = await Broker.started()
    assert (await broker.send(urgent(1))).status.code == Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE
