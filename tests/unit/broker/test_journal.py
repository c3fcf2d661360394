"""What meets in one turn becomes one frame; answers come in order and only from the disk."""

import asyncio

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations.journal import Stored
from kourou_broker.state import Fate, Kind, records
from kourou_broker.state.records import Lease
from kourou_service.refusal import Refused
from tests.unit.broker.alone import Broker, ids, message, simulated

Code = definition_pb2.Code


class Frames:
    """The kinds of sections in each frame that the log was given."""

    def __init__(self, broker: Broker) -> None:
        self.kinds: list[list[int]] = []
        append = broker.core.log.append

        def listen(sections, stored_ms, **fields):  # type: ignore[no-untyped-def]
            self.kinds.append([section.kind for section in sections])
            return append(sections, stored_ms, **fields)

        broker.core.log.append = listen  # type: ignore[method-assign]


@simulated
async def test_what_meets_in_a_turn_is_one_frame_with_a_section_a_queue() -> None:
    broker = await Broker.started(queues=2)
    await broker.put_topic("events")
    await broker.send_ids("1", "2", "3")
    await broker.send_ids("4", "5", "6")
    received = await broker.receive()
    await broker.core.journal.durable()  # the leases, too
    frames = Frames(broker)
    answers = await asyncio.gather(
        *(broker.send(message(id_=str(number))) for number in range(20)),
        *(broker.send(message(topic="events")) for _ in range(5)),
        *(broker.ack(one) for one in received),
    )
    assert len(answers) == 31
    (kinds,) = [kinds for kinds in frames.kinds if kinds]
    assert sorted(kinds) == sorted([Kind.MESSAGES] * 2 + [Kind.ACK] * 2)


@simulated
async def test_a_lease_is_written_with_what_comes_next_or_soon() -> None:
    broker = await Broker.started()
    await broker.send_ids("1", "2")
    frames = Frames(broker)
    (first,) = await broker.receive(batch_size=1)
    await broker.ack(first)
    assert [kinds for kinds in frames.kinds if kinds] == [[Kind.LEASE, Kind.ACK]]
    await broker.receive(batch_size=1)
    await asyncio.sleep(0.1)
    assert [kinds for kinds in frames.kinds if kinds] == [[Kind.LEASE, Kind.ACK], [Kind.LEASE]]


@simulated
async def test_answers_wait_for_the_disk_and_keep_their_order() -> None:
    broker = await Broker.started()
    journal, log = broker.core.journal, broker.core.log
    order: list[str] = []

    def note(what: str) -> None:
        order.append(what)
        assert log.durable_position == log.next_position or "frame" not in what

    journal.when_durable(lambda: note("nothing before"))
    await asyncio.sleep(0)
    assert order == ["nothing before"], "with nothing on its way there is nothing to wait for"
    broker.core.sending.send([message()], lambda stored: note("frame"))
    await asyncio.sleep(0)
    journal.when_durable(lambda: note("behind the frame"))
    await asyncio.sleep(0)
    assert order == ["nothing before"]
    await journal.durable()
    assert order == ["nothing before", "frame", "behind the frame"]


@simulated
async def test_a_crash_before_the_disk_had_it_means_no_answer() -> None:
    broker = await Broker.started()
    stored: list[object] = []
    broker.core.sending.send([message()], stored.append)
    broker.shard.cut_power()
    await broker.shard.start()
    assert not stored


@simulated
async def test_each_call_of_a_turn_hears_where_its_messages_are() -> None:
    broker = await Broker.started()
    stored: list[Stored | Refused] = []
    for number in (1, 3, 2):
        broker.core.sending.send([message() for _ in range(number)], stored.append)
    await broker.core.journal.durable()
    assert [(one.queue, one.base, one.place) for one in stored if isinstance(one, Stored)] == [
        (0, 0, 0),
        (0, 1, 1),
        (0, 4, 4),
    ]
    assert len({one.position for one in stored if isinstance(one, Stored)}) == 1


@simulated
async def test_too_many_waiting_bytes_are_refused_at_once_and_again_taken_later() -> None:
    broker = await Broker.started(max_waiting_bytes=10_000)
    body = bytes(3000)
    answers = await asyncio.gather(*(broker.send(message(body, id_=f"{number}")) for number in range(10)))
    codes = [answer.status.code for answer in answers]
    assert codes == [Code.OK] * 3 + [Code.TOO_MANY_REQUESTS] * 7
    assert broker.core.journal.waiting_bytes == 0
    assert (await broker.send(message(body))).status.code == Code.OK
    assert (await broker.send(message(bytes(20_000)))).status.code == Code.OK, "alone, anything legal is taken"
    assert len(await broker.receive()) == 5


@simulated
async def test_bytes_on_their_way_to_a_slow_disk_count() -> None:
    broker = await Broker.started(max_waiting_bytes=10_000)
    broker.shard.max_sync_s = 1.0
    first = [asyncio.ensure_future(broker.send(message(bytes(3000)))) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert (await broker.send(message(bytes(3000)))).status.code == Code.TOO_MANY_REQUESTS
    await asyncio.wait(first)
    assert (await broker.send(message(bytes(3000)))).status.code == Code.OK


@simulated
async def test_a_record_holds_at_once_and_an_ack_at_the_end_of_the_turn() -> None:
    broker = await Broker.started()
    await broker.send_ids("1", "2")
    await broker.receive()
    (progress,) = broker.core.state.progress.values()
    broker.core.journal.settle(progress, [0], Fate.CONSUMED)
    assert 0 in progress.pending
    broker.core.journal.settle_now(progress, [1], Fate.CONSUMED)
    assert 1 not in progress.pending
    await asyncio.sleep(0)
    assert not progress.pending


@simulated
async def test_an_ack_before_a_reset_settles_nothing_that_is_lent_after_it_in_the_same_turn() -> None:
    broker = await Broker.started()
    await broker.send_ids("1")
    await broker.receive()
    ((group, topic, queue), progress), *_ = broker.core.state.progress.items()
    journal = broker.core.journal
    journal.settle(progress, [0], Fate.CONSUMED)
    journal.set_offset(group, topic, queue, 0)
    journal.emit(records.lease(group, topic, queue, 1, Lease(1, 1, broker.now_ms(), 1, False, "c", [0])))
    await journal.durable()
    assert 0 in progress.pending
    await broker.crash()
    assert ids(await broker.receive(wait_s=1)) == ["1"]


@simulated
async def test_a_full_disk_refuses_messages_but_not_consumption() -> None:
    broker = await Broker.started(cache_bytes=0)
    for number in range(100):
        await broker.send_ids(f"{number}")
    broker.shard.disk.capacity_bytes = broker.shard.disk.used_bytes() + 100
    codes: set[int] = set()
    for number in range(400):
        answer = await broker.send(message(bytes(10_000), id_=f"more-{number}"))
        codes.add(answer.status.code)
        await asyncio.sleep(0.05)
    assert codes == {Code.OK, Code.FORBIDDEN}
    received = await broker.receive(batch_size=50, wait_s=1)
    assert len(received) == 50
    assert await broker.ack(*received) == Code.OK
    assert await broker.set_offset(90) == Code.OK
    broker.shard.disk.capacity_bytes *= 10
    await asyncio.sleep(5)
    assert (await broker.send(message())).status.code == Code.OK, "it comes back by itself"
    await broker.crash()
    assert ids(await broker.receive(batch_size=3)) == ["90", "91", "92"]


@pytest.mark.parametrize("fault", ["write_error", "sync_error"])
def test_a_failed_write_or_sync_ends_the_broker_and_is_never_answered(fault: str) -> None:
    @simulated
    async def test() -> None:
        broker = await Broker.started()
        crashed = asyncio.Event()
        broker.shard.on_crash = crashed.set
        setattr(broker.shard.disk, fault, OSError(5, "the disk is broken"))
        stored: list[object] = []
        broker.core.sending.send([message()], stored.append)
        await asyncio.wait_for(crashed.wait(), 10)
        assert not stored
        assert broker.shard.core is None

    test()
