"""Where a group starts in a topic that it has never read, and resets of groups at work."""

import asyncio
from typing import Any

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from tests.unit.broker.alone import Broker, attempt, handle, ids, resource, simulated, until

Code = definition_pb2.Code
OLD = [f"old{number}" for number in range(6)]
LAST = {"start": record_pb2.START_LAST}


async def broker_with_old_messages(*, queues: int = 2, **group: Any) -> Broker:
    """One message every 10 s."""
    broker = await Broker.started(queues=queues, group=group)
    for id_ in OLD:
        await broker.send_ids(id_)
        await asyncio.sleep(10)
    return broker


async def reset(broker: Broker, **to: Any) -> broker_pb2.ResetOffsetResponse:
    request = broker_pb2.ResetOffsetRequest(group=resource("team"), topic=resource("orders"), **to)
    return await broker.doors.call(broker_rpc.RESET_OFFSET, request, {})


async def start_again(broker: Broker, how: str) -> None:
    if how == "snapshot":
        await broker.core.snapshots.take()
        await broker.restart()
    elif how:
        await getattr(broker, how)()


@pytest.mark.parametrize("how", ["", "restart", "crash", "snapshot"])
@simulated
async def test_at_the_last_message_a_group_gets_what_comes_after_its_first_receive(how: str) -> None:
    broker = await broker_with_old_messages(**LAST)
    assert not await broker.receive(wait_s=1)
    await broker.core.journal.durable()
    await start_again(broker, how)
    for id_ in ("new1", "new2"):
        await broker.send_ids(id_)
    await start_again(broker, how)
    assert sorted(ids(await broker.receive(wait_s=1))) == ["new1", "new2"]


@simulated
async def test_who_waits_at_the_last_message_gets_the_next_at_once() -> None:
    broker = await broker_with_old_messages(**LAST)
    waiting = asyncio.ensure_future(broker.receive(wait_s=20))
    await asyncio.sleep(1)
    await broker.send_ids("new")
    assert ids(await waiting) == ["new"]
    [backlog] = await broker.core.backlogs.measure()
    assert backlog.lag == 1


@simulated
async def test_at_a_time_a_group_gets_what_was_stored_then_or_later() -> None:
    broker = await broker_with_old_messages()
    await broker.put_group("late", start=record_pb2.START_TIME, start_ms=broker.now_ms() - 25_000)
    assert sorted(ids(await broker.receive(group="late"))) == OLD[4:]
    await broker.core.journal.durable()
    await broker.crash()
    assert not await broker.receive(group="late", wait_s=1)
    await broker.put_group("early", start=record_pb2.START_TIME, start_ms=1)
    assert sorted(ids(await broker.receive(group="early"))) == OLD


@simulated
async def test_a_queue_that_is_added_later_is_read_from_its_beginning() -> None:
    broker = await broker_with_old_messages(queues=1, **LAST)
    assert not await broker.receive()
    await broker.put_topic("orders", 3, version=2)
    for id_ in ("new1", "new2", "new3"):
        await broker.send_ids(id_)
    await broker.crash()
    assert sorted(ids(await broker.receive(wait_s=1))) == ["new1", "new2", "new3"]


@simulated
async def test_a_start_at_the_first_message_leaves_no_record() -> None:
    broker = await Broker.started(queues=3, group={"start": record_pb2.START_FIRST})
    assert not await broker.receive()
    assert not broker.core.state.progress
    await broker.send_ids("m")
    assert ids(await broker.receive()) == ["m"]


@simulated
async def test_a_group_that_has_read_is_not_moved_by_another_start() -> None:
    broker = await broker_with_old_messages(queues=1)
    await broker.ack(*await broker.receive(batch_size=2))
    await broker.put_group("team", version=2, **LAST)
    await broker.restart()
    assert ids(await broker.receive(wait_s=1)) == OLD[2:]


@simulated
async def test_pulling_starts_nothing() -> None:
    broker = await broker_with_old_messages(queues=1, **LAST)
    assert ids((await broker.pull())[0]) == OLD
    assert (await broker.offset()).status.code == Code.OFFSET_NOT_FOUND


@pytest.mark.parametrize(
    "fields", [{"start": 77}, {"start": record_pb2.START_TIME}, {"start": record_pb2.START_LAST, "start_ms": 5}]
)
@simulated
async def test_a_start_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    broker = await Broker.started()
    assert (await broker.put_group("other", **fields)).status.code == Code.BAD_REQUEST
    assert {group.name.name for group in broker.core.state.groups.values()} == {"team"}


@simulated
async def test_a_reset_of_one_queue_counts_as_the_start_of_all() -> None:
    broker = await broker_with_old_messages(**LAST)
    answer = await reset(broker, queue=0, first=True)
    assert answer.status.code == Code.OK, answer.status
    assert ids(await broker.receive(wait_s=1)) == OLD[::2]


# Resets of groups at work


@simulated
async def test_a_reset_brings_messages_to_polls_that_wait() -> None:
    broker = await broker_with_old_messages()
    before = await broker.receive()
    assert len(before) == 6
    await broker.ack(*before[:5])
    waiting = asyncio.ensure_future(broker.receive(wait_s=20, client="another"))
    await asyncio.sleep(1)
    began_s = asyncio.get_running_loop().time()
    assert (await reset(broker, first=True)).status.code == Code.OK
    again = await waiting
    assert asyncio.get_running_loop().time() - began_s < 0.1
    assert sorted(ids(again)) == OLD
    assert {attempt(one) for one in again} == {1}
    assert await broker.ack(before[5]) == Code.INVALID_RECEIPT_HANDLE
    changed = await broker.change(handle(before[5]), 0)
    assert changed.status.code == Code.INVALID_RECEIPT_HANDLE
    assert await broker.forward(handle(before[5])) == Code.INVALID_RECEIPT_HANDLE
    await broker.crash()
    assert await broker.ack(*again) == Code.OK


@simulated
async def test_a_reset_reaches_push_consumers_that_own_queues() -> None:
    broker = await broker_with_old_messages(queues=1)
    broker.connect("member")
    await until(lambda: broker.members() == ["member"])
    fields: dict[str, Any] = {"client": "member", "queue": 0, "auto_renew": True, "invisible_s": None}
    held = await broker.receive(**fields)
    assert ids(held) == OLD
    waiting = asyncio.ensure_future(broker.receive(wait_s=20, **fields))
    await asyncio.sleep(1)
    request = broker_pb2.ResetOffsetRequest(group=resource("team"), topic=resource("orders"))
    request.time.FromMilliseconds(broker.now_ms() - 25_000)
    assert (await broker.doors.call(broker_rpc.RESET_OFFSET, request, {})).status.code == Code.OK
    assert ids(await waiting) == OLD[4:]
    assert await broker.ack(*held, client="member") == Code.INVALID_RECEIPT_HANDLE


@simulated
async def test_a_repeated_receive_after_a_reset_gets_what_is_there_now() -> None:
    broker = await broker_with_old_messages(queues=1)
    assert ids(await broker.receive(attempt_id="one", batch_size=2)) == OLD[:2]
    assert await broker.set_offset(3) == Code.OK
    assert ids(await broker.receive(attempt_id="one", batch_size=2)) == OLD[3:5]


@simulated
async def test_a_reset_that_one_queue_cannot_take_changes_none() -> None:
    broker = await broker_with_old_messages()
    await broker.send_ids("x")
    await broker.ack(*await broker.receive())
    answer = await reset(broker, offset=4)
    assert answer.status.code == Code.ILLEGAL_OFFSET
    assert "queue 1" in answer.status.message
    assert not await broker.receive(wait_s=1)
