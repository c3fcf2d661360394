"""FIFO messages: within a message group nothing newer comes before the older is settled, whatever happens meanwhile."""

import asyncio
from typing import Any

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.log.section import Section
from kourou_broker.operations import receipt
from kourou_broker.operations.backlog import Backlog
from kourou_broker.operations.message import MAX_NAME_BYTES
from kourou_broker.state import Kind, records
from tests.unit.broker.alone import Broker, Message, attempt, handle, ids, message, resource, simulated, until

Code = definition_pb2.Code


async def fifo_broker(
    *, queues: int = 1, group: dict[str, Any] | None = None, sent: str = "", **settings: Any
) -> Broker:
    broker = Broker(**settings)
    await broker.shard.start()
    await broker.put_topic("orders", queues, type=definition_pb2.FIFO)
    await broker.put_group("team", **{"order": record_pb2.ORDER_FIFO, **(group or {})})
    await send(broker, sent)
    return broker


def fifo(id_: str, **fields: Any) -> Message:
    """A message whose message group is what its id begins with: a1 and a2 are of one."""
    return message(id_=id_, message_group=id_[0], message_type=definition_pb2.FIFO, **fields)


async def send(broker: Broker, sent: str) -> None:
    for id_ in sent.split():
        answer = await broker.send(fifo(id_))
        assert answer.status.code == Code.OK, answer.status


async def received(broker: Broker, **fields: Any) -> str:
    """The ids of what one call brings, and each of them is acknowledged."""
    messages = await broker.receive(**fields)
    if messages:
        assert await broker.ack(*messages) == Code.OK
    return " ".join(ids(messages))


async def restarted_from_a_snapshot(broker: Broker) -> None:
    await broker.core.snapshots.take()
    await broker.restart()


# Sending


@simulated
async def test_a_message_group_has_one_queue_and_its_messages_lie_there_in_order() -> None:
    broker = await fifo_broker(queues=4)
    places: dict[str, list[tuple[int, int]]] = {}
    for number in range(3):
        for group in "abcdefgh":
            answer = await broker.send(fifo(f"{group}{number}"))
            assert answer.status.code == Code.OK, answer.status
    for queue in range(4):
        for one in (await broker.pull(queue=queue))[0]:
            system = one.system_properties
            assert system.message_type == definition_pb2.FIFO
            places.setdefault(system.message_group, []).append((system.queue_id, system.queue_offset))
    assert len(places) == 8
    assert len({queue for place in places.values() for queue, _offset in place}) > 1, "groups are spread"
    for place in places.values():
        assert len({queue for queue, _offset in place}) == 1
        assert place == sorted(place)
        assert len(place) == 3


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"message_group": " "}, Code.ILLEGAL_MESSAGE_GROUP),
        ({"message_group": ""}, Code.ILLEGAL_MESSAGE_GROUP),
        ({"message_group": "x" * (MAX_NAME_BYTES + 1)}, Code.ILLEGAL_MESSAGE_GROUP),
        ({}, Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        ({"message_group": "a", "priority": 1}, Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        ({"message_group": "a", "message_type": definition_pb2.DELAY}, Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
    ],
)
@simulated
async def test_bad_fifo_messages_are_refused(fields: dict[str, Any], code: int) -> None:
    broker = await fifo_broker()
    assert (await broker.send(message(**fields))).status.code == code
    assert (await broker.query_offset(definition_pb2.END)).offset == 0


@simulated
async def test_messages_of_one_request_have_one_message_group() -> None:
    broker = await fifo_broker()
    refused = await broker.send(fifo("a1"), fifo("b1"))
    assert refused.status.code == Code.BAD_REQUEST
    assert "one message group" in refused.status.message
    assert (await broker.send(fifo("a1"), fifo("a2"))).status.code == Code.OK
    assert await received(broker) == "a1"


@simulated
async def test_a_fifo_message_to_a_normal_topic_is_refused() -> None:
    broker = await Broker.started()
    assert (await broker.send(fifo("a1"))).status.code == Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE


# Receiving


@simulated
async def test_a_batch_holds_the_oldest_of_each_message_group() -> None:
    broker = await fifo_broker(sent="a1 a2 b1 a3 c1 b2")
    first = await broker.receive(invisible_s=600)
    assert ids(first) == ["a1", "b1", "c1"]
    assert not await broker.receive(wait_s=1)
    await broker.ack(first[1])
    assert ids(await broker.receive(invisible_s=600)) == ["b2"]
    await broker.ack(first[0])
    assert await received(broker) == "a2"
    assert await received(broker) == "a3"
    assert not await broker.receive(wait_s=20)


@simulated
async def test_a_concurrent_group_gets_fifo_messages_like_others() -> None:
    broker = await fifo_broker(sent="a1 a2 b1", group={"order": record_pb2.ORDER_CONCURRENT})
    assert ids(await broker.receive()) == ["a1", "a2", "b1"]


@simulated
async def test_a_small_batch_leaves_the_rest_for_the_next() -> None:
    broker = await fifo_broker(sent="a1 a2 b1 c1 c2 d1")
    for id_ in ("a1", "b1", "c1", "d1"):
        assert ids(await broker.receive(batch_size=1)) == [id_]
    assert not await broker.receive(batch_size=1)


@simulated
async def test_who_waits_gets_the_next_when_the_one_before_is_acknowledged() -> None:
    broker = await fifo_broker(sent="a1 a2")
    [first] = await broker.receive()
    waiting = asyncio.ensure_future(broker.receive(wait_s=20, client="another"))
    await asyncio.sleep(5)
    began_s = asyncio.get_running_loop().time()
    await broker.ack(first)
    assert ids(await waiting) == ["a2"]
    assert asyncio.get_running_loop().time() - began_s < 0.1


@simulated
async def test_the_next_waits_until_the_disk_has_the_ack() -> None:
    broker = await fifo_broker(sent="a1 a2")
    [first] = await broker.receive()
    waiting = asyncio.ensure_future(broker.receive(wait_s=20, client="another"))
    await asyncio.sleep(1)
    acked = asyncio.ensure_future(broker.ack(first))
    turns = 0
    while not acked.done():
        assert not waiting.done()
        await asyncio.sleep(0)
        turns += 1
        if turns % 100 == 0:
            await asyncio.sleep(0.001)
    assert ids(await waiting) == ["a2"]


@simulated
async def test_a_new_subscription_waits_for_acks_that_the_disk_does_not_have_yet() -> None:
    broker = await fifo_broker(sent="a1 a2")
    [first] = await broker.receive(invisible_s=60)
    await broker.restart()
    broker.shard.max_sync_s = 1
    acked = asyncio.ensure_future(broker.ack(first))
    (progress,) = broker.core.state.progress.values()
    while 0 in progress.pending:  # noqa: ASYNC110 - turns count here, not time
        await asyncio.sleep(0)
    broker.shard.max_sync_s = 0  # of reads: the ack is on its way to the disk
    waiting = asyncio.ensure_future(broker.receive(wait_s=20))
    await asyncio.wait((acked, waiting), return_when=asyncio.FIRST_COMPLETED)
    assert acked.done(), "the newer one came while the ack was not on the disk"
    assert ids(await waiting) == ["a2"]


@simulated
async def test_redelivery_keeps_the_place_and_counts() -> None:
    broker = await fifo_broker(sent="a1 a2")
    [first] = await broker.receive(invisible_s=5)
    [again] = await broker.receive(wait_s=10, invisible_s=60)
    assert (ids([first, again]), attempt(again)) == (["a1", "a1"], 2)
    await broker.change(handle(again), 0)
    [again] = await broker.receive(invisible_s=60)
    assert (ids([again]), attempt(again)) == (["a1"], 3)
    changed = await broker.change(handle(again), 3, suspend=True)
    [again] = await broker.receive(wait_s=10, invisible_s=60)
    assert (ids([again]), attempt(again)) == (["a1"], 3)
    assert await broker.ack(again) == Code.OK
    assert (await broker.ack_all(changed.receipt_handle)).status.code == Code.INVALID_RECEIPT_HANDLE
    [second] = await broker.receive()
    assert (ids([second]), attempt(second)) == (["a2"], 1)


@simulated
async def test_a_suspended_first_attempt_is_not_taken_for_a_message_held_back() -> None:
    broker = await fifo_broker(sent="a1 a2")
    [first] = await broker.receive()
    changed = await broker.change(handle(first), 30, suspend=True)
    await broker.restart()
    assert not await broker.receive(wait_s=5)
    assert (await broker.ack_all(changed.receipt_handle)).status.code == Code.OK
    assert await received(broker, wait_s=1) == "a2"


@simulated
async def test_a_poison_message_frees_its_message_group_and_stops_no_other() -> None:
    broker = await fifo_broker(sent="a1 a2 b1 b2", group={"max_attempts": 2})
    got: list[str] = []
    for _ in range(8):
        for one in await broker.receive(wait_s=3, invisible_s=1):
            got.append(f"{ids([one])[0]}/{attempt(one)}")
            if ids([one]) != ["a1"]:
                await broker.ack(one)
    assert got == ["a1/1", "b1/1", "b2/1", "a1/2", "a2/1"]
    assert ids(await broker.dead_letters()) == ["a1"]


@simulated
async def test_a_forwarded_message_frees_its_message_group() -> None:
    broker = await fifo_broker(sent="a1 a2 a3")
    for id_ in ("a1", "a2", "a3"):
        [one] = await broker.receive(wait_s=1)
        assert ids([one]) == [id_]
        assert await broker.forward(handle(one)) == Code.OK
    assert ids(await broker.dead_letters()) == ["a1", "a2", "a3"]


@simulated
async def test_a_repeated_receive_gets_the_same_and_nothing_newer() -> None:
    broker = await fifo_broker(sent="a1 a2 b1")
    first = await broker.receive(attempt_id="one")
    again = await broker.receive(attempt_id="one")
    assert ids(first) == ids(again) == ["a1", "b1"]
    assert {attempt(one) for one in again} == {1}
    await broker.ack(again[0])
    third = await broker.receive(attempt_id="one")
    assert ids(third) == ["b1"]
    assert ids(await broker.receive(attempt_id="two")) == ["a2"]


@simulated
async def test_what_a_dead_member_held_comes_first_to_who_takes_its_queue() -> None:
    broker = await fifo_broker(sent="a1 a2 a3")
    stream = broker.connect("member-1")
    broker.connect("member-2")
    await until(lambda: broker.members() == ["member-1", "member-2"])
    [owner] = [one for one in ("member-1", "member-2") if await broker.assigned(one) == [0]]
    assert owner == "member-1"
    fields: dict[str, Any] = {"queue": 0, "auto_renew": True, "invisible_s": None}
    assert ids(await broker.receive(client="member-1", **fields)) == ["a1"]
    assert not await broker.receive(client="member-2", wait_s=2, **fields)
    stream.cancel()
    await until(lambda: broker.members() == ["member-2"], 30)
    [again] = await broker.receive(client="member-2", wait_s=20, **fields)
    assert (ids([again]), attempt(again)) == (["a1"], 2)
    assert not await broker.receive(client="member-2", wait_s=5, **fields)
    await broker.ack(again, client="member-2")
    assert ids(await broker.receive(client="member-2", **fields)) == ["a2"]


@simulated
async def test_a_queue_that_moves_brings_nothing_newer_than_what_its_last_owner_works_on() -> None:
    broker = await fifo_broker(sent="a1 a2")
    broker.connect("member-2")
    await until(lambda: broker.members() == ["member-2"])
    fields: dict[str, Any] = {"queue": 0, "auto_renew": True, "invisible_s": None}
    [first] = await broker.receive(client="member-2", **fields)
    broker.connect("member-1")
    await until(lambda: broker.members() == ["member-1", "member-2"])
    assert await broker.assigned("member-1") == [0]
    for _ in range(4):  # for more than an invisible time: member-2 lives, and so does its lease
        assert not await broker.receive(client="member-1", wait_s=30, **fields)
    waiting = asyncio.ensure_future(broker.receive(client="member-1", wait_s=30, **fields))
    await asyncio.sleep(1)
    await broker.ack(first, client="member-2")
    assert ids(await waiting) == ["a2"]


@simulated
async def test_filtered_messages_hold_up_nobody() -> None:
    broker = await fifo_broker()
    for id_, tag in (("a1", "red"), ("a2", "blue"), ("a3", "red"), ("a4", "red")):
        await broker.send(fifo(id_, tag=tag))
    assert await received(broker, tags="red") == "a1"
    assert await received(broker, tags="red") == "a3"
    assert await received(broker, tags="red") == "a4"
    (progress,) = broker.core.state.progress.values()
    assert (progress.high, progress.pending) == (4, {})


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@simulated
async def test_others_are_found_behind_a_long_row_of_one_message_group(batch_size: int) -> None:
    broker = await fifo_broker(sent=" ".join(f"a{number}" for number in range(700)) + " b1 c1")
    got: list[str] = []
    for _ in range(3):
        got += ids(await broker.receive(wait_s=30, batch_size=batch_size, invisible_s=600))
    assert got == ["a0", "b1", "c1"]


@simulated
async def test_the_bound_of_what_is_pending_holds_and_opens_again() -> None:
    broker = await fifo_broker(sent="a1 a2 a3 a4 a5 a6 b1", max_pending_messages=4)
    [first] = await broker.receive()
    (progress,) = broker.core.state.progress.values()
    assert sorted(progress.pending) == [0, 1, 2, 3]
    assert not await broker.receive(wait_s=1)
    await broker.ack(first)
    for wanted in ("a2", "a3", "a4"):
        [one] = await broker.receive(wait_s=1, batch_size=1)
        assert ids([one]) == [wanted]
        assert len(progress.pending) <= 4
        await broker.ack(one)
    assert sorted(ids(await broker.receive(wait_s=1))) == ["a5", "b1"]


# Starts, crashes, resets


@pytest.mark.parametrize("how", ["restart", "crash", "snapshot"])
@simulated
async def test_order_holds_across_a_start(how: str) -> None:
    broker = await fifo_broker(sent="a1 a2 a3 b1 b2")
    first = await broker.receive(invisible_s=30)
    assert ids(first) == ["a1", "b1"]
    await broker.ack(first[1])
    if how == "snapshot":
        await restarted_from_a_snapshot(broker)
    else:
        await getattr(broker, how)()
    assert ids(await broker.receive(wait_s=1)) == ["b2"], "b1 is settled, a1 still lent"
    assert await broker.ack(first[0]) == Code.OK
    assert await received(broker, wait_s=1) == "a2"
    assert await received(broker, wait_s=1) == "a3"


@simulated
async def test_messages_held_back_outlive_their_segment() -> None:
    broker = await fifo_broker(sent="a1 a2 a3", segment_bytes=64 * 1024, retention_bytes=64 * 1024)
    [first] = await broker.receive(invisible_s=3600)
    for number in range(40):
        await broker.send(fifo(f"b{number}", body=bytes(8 * 1024)))
    await broker.core.snapshots.take()
    await broker.core.check_retention()
    assert broker.core.log.first_position > 0
    await broker.crash()
    await broker.ack(first)
    got = ids(await broker.receive(wait_s=1))
    assert got[0] == "a2"
    assert [one for one in got if one[0] == "a"] == ["a2"]


@simulated
async def test_a_reset_voids_the_leases_and_the_order_begins_anew() -> None:
    broker = await fifo_broker(sent="a1 a2 a3 b1")
    before = await broker.receive(invisible_s=600)
    waiting = asyncio.ensure_future(broker.receive(wait_s=20, client="another"))
    await asyncio.sleep(1)
    answers = await asyncio.gather(broker.ack(before[0]), broker.set_offset(0))
    assert answers == [Code.OK, Code.OK]
    again = await waiting
    assert ids(again) == ["a1", "b1"]
    assert {attempt(one) for one in again} == {1}
    for one in before:
        assert await broker.ack(one) == Code.INVALID_RECEIPT_HANDLE
    assert not await broker.receive(wait_s=1)
    assert await broker.ack(again[0], client="another") == Code.OK
    assert ids(await broker.receive()) == ["a2"]


@simulated
async def test_a_reset_forward_leaves_nothing_held_back() -> None:
    broker = await fifo_broker(sent="a1 a2 a3")
    await broker.receive(invisible_s=600)
    request = broker_pb2.ResetOffsetRequest(group=resource("team"), topic=resource("orders"), last=True)
    assert (await broker.doors.call(broker_rpc.RESET_OFFSET, request, {})).status.code == Code.OK
    (progress,) = broker.core.state.progress.values()
    assert not progress.pending
    await send(broker, "a4 a5")
    assert await received(broker, wait_s=1) == "a4"
    assert await received(broker, wait_s=1) == "a5"


@simulated
async def test_a_group_may_begin_and_cease_to_keep_order() -> None:
    broker = await fifo_broker(sent="a1 a2 a3 a4", group={"order": record_pb2.ORDER_CONCURRENT})
    assert ids(await broker.receive(batch_size=2, invisible_s=5)) == ["a1", "a2"]
    await broker.put_group("team", version=2, order=record_pb2.ORDER_FIFO)
    assert not await broker.receive(wait_s=3)
    for wanted, attempts in (("a1", 2), ("a2", 2), ("a3", 1)):
        [one] = await broker.receive(wait_s=10, invisible_s=60)
        assert (ids([one]), attempt(one)) == ([wanted], attempts)
        assert not await broker.receive(wait_s=2)
        if wanted != "a3":
            await broker.ack(one)
    await send(broker, "a5")
    waiting = asyncio.ensure_future(broker.receive(wait_s=20))
    await asyncio.sleep(1)
    assert not waiting.done()
    await broker.put_group("team", version=3, order=record_pb2.ORDER_CONCURRENT)
    rest = await waiting
    while len(rest) < 2:
        rest += await broker.receive(wait_s=5)
    assert sorted(ids(rest)) == ["a4", "a5"]
    assert {attempt(one) for one in rest} == {1}


# What is seen of it


@simulated
async def test_what_is_held_back_lags_and_is_neither_in_flight_nor_ready() -> None:
    broker = await fifo_broker(sent="a1 a2 a3 b1")

    async def figures() -> tuple[int, int, int]:
        backlog: Backlog
        [backlog] = await broker.core.backlogs.measure()
        return backlog.lag, backlog.inflight, backlog.held_back

    async def described() -> tuple[int, int, int]:
        request = broker_pb2.DescribeQueuesRequest(topic=resource("orders"))
        [queue] = (await broker.doors.call(broker_rpc.DESCRIBE_QUEUES, request, {})).queues
        [progress] = queue.progress
        return progress.lag, progress.inflight, progress.committed_offset

    first = await broker.receive(invisible_s=600)
    assert ids(first) == ["a1", "b1"]
    assert await figures() == (4, 2, 2)
    assert await described() == (4, 2, 0)
    await broker.ack(first[0])
    assert await figures() == (3, 1, 1), "a2 can be had now"
    assert await described() == (3, 1, 1)


@simulated
async def test_a_handle_made_up_for_a_message_held_back_is_refused() -> None:
    broker = await fifo_broker(sent="a1 a2")
    await broker.receive()
    (key, progress), *_ = broker.core.state.progress.items()
    made_up = receipt.encode(key, 1, progress.pending[1])
    assert (await broker.ack_all(made_up)).status.code == Code.INVALID_RECEIPT_HANDLE
    assert (await broker.change(made_up, 1)).status.code == Code.INVALID_RECEIPT_HANDLE


@simulated
async def test_what_is_lent_and_what_is_held_back_is_recorded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = await fifo_broker(sent="a1 a2 b1")
    frames: list[list[Section]] = []
    append = broker.core.log.append

    def observed(sections: list[Section], *args: Any, **fields: Any) -> Any:
        frames.append(list(sections))
        return append(sections, *args, **fields)

    monkeypatch.setattr(broker.core.log, "append", observed)
    await broker.receive()
    await broker.core.journal.durable()
    [leases] = [frame for frame in frames if any(section.kind == Kind.LEASE for section in frame)]
    read = [records.read_lease(section) for section in leases if section.kind == Kind.LEASE]
    assert [(list(lease.offsets), lease.attempt, lease.holds_back, high) for _group, high, lease in read] == [
        ([0, 2], 1, False, 0),
        ([1], 0, True, 3),
    ]


@simulated
async def test_what_is_found_goes_out_before_the_whole_row_behind_it_is_looked_through() -> None:
    broker = await fifo_broker(max_pending_messages=65536, cache_bytes=4 << 20, segment_bytes=4 << 20)
    for start in range(0, 4000, 500):
        await broker.send(*(fifo(f"a{number}") for number in range(start, start + 500)))
    assert ids(await broker.receive(invisible_s=600)) == ["a0"]
    (progress,) = broker.core.state.progress.values()
    assert progress.high < 4000
    await send(broker, "b1")
    assert ids(await broker.receive(wait_s=1)) == ["b1"]
    assert progress.high == 4001
