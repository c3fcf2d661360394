"""Delayed messages come at their time, once, and through whatever happens meanwhile; or they are recalled."""

import asyncio
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_broker.operations import firing
from kourou_broker.state import fold, snapshot
from kourou_service.recall_handle import RecallHandle
from tests.simulation.cluster import topic_definition
from tests.simulation.test_broker_crashes import facts
from tests.unit.broker.alone import MIB, Broker, Message, ids, message, resource, simulated, until
from tests.unit.broker.test_metrics import shown

Code = definition_pb2.Code
DELAY = definition_pb2.DELAY
DISK = {"storage_type": "local", "storage_medium": "disk"}
DAY_S = 24 * 3600
KIB = 1024


async def started(queues: int = 1, **settings: Any) -> Broker:
    broker = await Broker.started(**settings)
    await broker.put_topic("later", queues, type=DELAY)
    return broker


def delayed(broker: Broker, id_: str, delay_s: float, body: bytes = b"body", topic: str = "later") -> Message:
    one = message(body, id_, topic)
    one.system_properties.delivery_timestamp.FromMilliseconds(broker.now_ms() + int(delay_s * 1000))
    return one


async def send(broker: Broker, *delays_s: float, first: int = 0, body: bytes = b"body") -> list[str]:
    """One call with messages m0, m1, … -> their recall handles."""
    answer = await broker.send(
        *(delayed(broker, f"m{number}", delay_s, body) for number, delay_s in enumerate(delays_s, first))
    )
    assert answer.status.code == Code.OK, answer.status
    return [entry.recall_handle for entry in answer.entries]


async def recall(broker: Broker, handle: str, topic: str = "later") -> service_pb2.RecallMessageResponse:
    request = service_pb2.RecallMessageRequest(topic=resource(topic), recall_handle=handle)
    return await broker.doors.call(service_rpc.RECALL_MESSAGE, request, {"x-mq-client-id": "producer"})


async def delivered(broker: Broker, group: str = "team") -> list[str]:
    """What there is now; it is acknowledged."""
    found: list[Message] = []
    while some := await broker.receive(topic="later", group=group, wait_s=0):
        found += some
        assert await broker.ack(*some, topic="later", group=group) == Code.OK
    return ids(found)


def pending(broker: Broker) -> int:
    return sum(map(len, broker.core.state.timers.values()))


# Its time


@simulated
async def test_a_message_comes_at_its_time_and_as_it_was_sent() -> None:
    broker = await started()
    one = delayed(broker, "m0", 60)
    due_ms = one.system_properties.delivery_timestamp.ToMilliseconds()
    one.user_properties["colour"] = "red"
    one.system_properties.keys.append("key")
    answer = await broker.send(one)
    assert answer.entries[0].recall_handle
    await asyncio.sleep(59.9)
    assert not await broker.receive(topic="later")
    (got,) = await broker.receive(topic="later", wait_s=10)
    assert 0 <= broker.now_ms() - due_ms <= 100
    system = got.system_properties
    assert (got.body, dict(got.user_properties), list(system.keys)) == (b"body", {"colour": "red"}, ["key"])
    assert (system.message_type, system.delivery_timestamp.ToMilliseconds()) == (DELAY, due_ms)
    assert system.store_timestamp.ToMilliseconds() >= due_ms


@simulated
async def test_many_times_in_one_call_and_in_many() -> None:
    broker = await started(queues=3)
    await send(broker, 5, 3, 0, 4)
    await asyncio.gather(*(send(broker, 1 + number / 10, first=100 + number) for number in range(20)))
    came: dict[str, int] = {}
    began_ms = broker.now_ms()
    while len(came) < 24:
        for one in await broker.receive(topic="later", wait_s=5):
            late_ms = broker.now_ms() - one.system_properties.delivery_timestamp.ToMilliseconds()
            assert 0 <= late_ms <= 100, one.system_properties.message_id
            came[one.system_properties.message_id] = broker.now_ms()
        assert broker.now_ms() - began_ms < 10_000
    assert [id_ for id_ in came if len(id_) == 2] == ["m2", "m1", "m3", "m0"]
    assert [id_ for id_ in came if len(id_) == 4] == [f"m{number}" for number in range(100, 120)]


@simulated
async def test_a_time_between_milliseconds_is_rounded_up() -> None:
    broker = await started()
    one = delayed(broker, "m0", 1)
    one.system_properties.delivery_timestamp.nanos += 1
    due_ms = broker.now_ms() + 1000
    await broker.send(one)
    (got,) = await broker.receive(topic="later", wait_s=5)
    assert got.system_properties.store_timestamp.ToMilliseconds() > due_ms


@simulated
async def test_what_is_due_by_now_is_a_message_like_any_other() -> None:
    broker = await started()
    answer = await broker.send(delayed(broker, "m0", 0), delayed(broker, "m1", -5 * DAY_S))
    assert [(entry.offset, entry.recall_handle) for entry in answer.entries] == [(0, ""), (1, "")]
    assert pending(broker) == 0
    assert await delivered(broker) == ["m0", "m1"]


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(0, 0), (-1, 0), (1, -1_500_000_000), (10**15, 0), (1 << 62, 0), (-(1 << 62), 0), (1, 1 << 30)],
)
def test_a_time_that_is_none_is_refused(seconds: int, nanos: int) -> None:
    @simulated
    async def run() -> None:
        broker = await started()
        one = message(topic="later")
        one.system_properties.delivery_timestamp.seconds = seconds
        one.system_properties.delivery_timestamp.nanos = nanos
        answer = await broker.send(delayed(broker, "m0", 1), one)
        assert answer.status.code == Code.ILLEGAL_DELIVERY_TIME, answer.status
        assert pending(broker) == 0

    run()


@simulated
async def test_the_furthest_time_is_a_setting() -> None:
    broker = await started()
    await send(broker, 40 * DAY_S)
    answer = await broker.send(delayed(broker, "m1", 40 * DAY_S + 1))
    assert answer.status.code == Code.ILLEGAL_DELIVERY_TIME
    assert "40 days" in answer.status.message
    other = await started(max_delay_days=0.5)
    assert (await other.send(delayed(other, "m1", DAY_S))).status.code == Code.ILLEGAL_DELIVERY_TIME
    await send(other, DAY_S / 2)


@simulated
async def test_the_furthest_one_comes() -> None:
    broker = await started()
    await send(broker, 40 * DAY_S)
    broker.shard.clock.skew_ms += (40 * DAY_S - 100) * 1000
    await asyncio.sleep(99)
    assert not await broker.receive(topic="later")
    assert ids(await broker.receive(topic="later", wait_s=5)) == ["m0"]


@simulated
async def test_an_earlier_one_does_not_wait_for_a_later_one() -> None:
    broker = await started()
    await send(broker, 3600)
    await asyncio.sleep(0.5)
    await send(broker, 0.2, first=1)
    assert ids(await broker.receive(topic="later", wait_s=0.4)) == ["m1"]


@simulated
async def test_a_clock_that_jumps_takes_the_timers_along() -> None:
    broker = await started()
    await send(broker, 3600, 7200)
    broker.shard.clock.skew_ms += 3_600_000
    await asyncio.sleep(1.1)
    assert await delivered(broker) == ["m0"]
    broker.shard.clock.skew_ms -= 3_600_000
    await asyncio.sleep(5)
    assert await delivered(broker) == []


@simulated
async def test_topics_do_not_wait_for_each_other() -> None:
    broker = await started()
    await broker.put_topic("other", type=DELAY)
    await broker.send(delayed(broker, "a", 2), delayed(broker, "b", 4))
    await broker.send(delayed(broker, "c", 3, topic="other"), delayed(broker, "d", 1, topic="other"))
    order: list[str] = []
    for _ in range(4):
        for topic in ("later", "other"):
            order += ids(await broker.receive(topic=topic, wait_s=0))
        await asyncio.sleep(1.05)
    for topic in ("later", "other"):
        order += ids(await broker.receive(topic=topic, wait_s=0))
    assert order == ["d", "a", "c", "b"]


def at_each_portion(broker: Broker, called: Callable[[int], None]) -> None:
    """Tells how many messages fired in a turn, turn by turn."""
    fire = broker.core.firing._fire  # type: ignore[attr-defined]

    def listen(topic: int, found: list[Any]) -> None:
        fire(topic, found)
        called(len(found))

    broker.core.firing._fire = listen  # type: ignore[method-assign]


@simulated
async def test_many_at_once_leave_others_their_turn() -> None:
    broker = await started()
    for start in range(0, 20_000, 4000):
        await broker.send(*(delayed(broker, f"m{number}", 30, b"x") for number in range(start, start + 4000)))
    assert pending(broker) == 20_000
    loop: Any = asyncio.get_running_loop()
    fired: Counter[tuple[float, int]] = Counter()

    def note(count: int) -> None:
        fired[loop.time(), loop._turns] += count

    at_each_portion(broker, note)
    await asyncio.sleep(60)
    assert max(fired.values()) <= 256
    assert sum(fired.values()) == 20_000
    assert (await broker.query_offset(definition_pb2.END, topic="later")).offset == 20_000


@simulated
async def test_a_topic_with_many_does_not_hold_up_another() -> None:
    broker = await started()
    await broker.put_topic("other", type=DELAY)
    for start in range(0, 12_000, 4000):
        await broker.send(*(delayed(broker, f"m{number}", 10, b"x") for number in range(start, start + 4000)))
    await broker.send(delayed(broker, "only", 10.2, topic="other"))
    left = 0

    def note(_count: int) -> None:
        nonlocal left
        if not broker.core.state.timers.get(other) and not left:
            left = pending(broker)

    other = next(topic.id for topic in broker.core.state.topics.values() if topic.name.name == "other")
    at_each_portion(broker, note)
    broker.shard.clock.skew_ms += 20_000  # all of them are late
    await until(lambda: pending(broker) == 0)
    assert left > 8000, "what is due first fires first, however much it is"


@simulated
async def test_large_messages_fire_in_small_portions() -> None:
    broker = await started()
    await send(broker, *[1.0] * 3, body=bytes(150 * KIB))
    await send(broker, *[1.0] * 3, first=3, body=bytes(150 * KIB))
    await until(lambda: pending(broker) == 0)
    assert await delivered(broker) == [f"m{number}" for number in range(6)]


@simulated
async def test_a_send_that_is_repeated_gets_the_same_handle() -> None:
    broker = await started()
    one = delayed(broker, "m0", 60)

    def again() -> Message:
        return Message.FromString(one.SerializeToString())

    first = await broker.send(again())
    repeated = await broker.send(delayed(broker, "m1", 60), again(), delayed(broker, "m2", -1))
    handles = [entry.recall_handle for entry in repeated.entries]
    assert handles[1] == first.entries[0].recall_handle
    assert [RecallHandle.parse(handle).message_id for handle in handles] == ["m1", "m0", "m2"]
    await asyncio.sleep(61)
    assert sorted(await delivered(broker)) == ["m0", "m1", "m2"]


# Restarts and crashes


async def restart(broker: Broker) -> None:
    await broker.restart()


async def crash(broker: Broker) -> None:
    await broker.crash()


async def power_cut(broker: Broker) -> None:
    broker.shard.cut_power()
    await broker.shard.start()


WAYS = pytest.mark.parametrize("again", [restart, crash, power_cut])


@WAYS
def test_a_restart_loses_none_and_brings_none_twice(again: Any) -> None:
    @simulated
    async def run() -> None:
        broker = await started()
        await send(broker, 5, 10, 15, 20)
        await again(broker)
        await asyncio.sleep(6)
        await again(broker)
        await asyncio.sleep(5)
        assert await delivered(broker) == ["m0", "m1"]
        broker.shard.kill()
        await asyncio.sleep(60)  # they fall due while it is down
        await broker.shard.start()
        await until(lambda: pending(broker) == 0)
        await again(broker)
        assert await delivered(broker) == ["m2", "m3"]
        await asyncio.sleep(60)
        assert await delivered(broker) == []

    run()


@simulated
async def test_a_restart_from_a_snapshot() -> None:
    broker = await started(segment_bytes=16 * KIB, snapshot_every_bytes=16 * KIB, retention_interval_s=1_000_000)
    handles = await send(broker, 50, 100, 150, 3000)
    await fill(broker, 40)
    await recall(broker, handles[1])
    await broker.shard.process.start(broker.core.check_retention())
    assert broker.core.snapshots.newest > 0
    await broker.crash()
    assert pending(broker) == 3
    await asyncio.sleep(160)
    assert await delivered(broker) == ["m0", "m2"]
    await broker.crash()
    assert await delivered(broker) == []
    assert pending(broker) == 1


def test_a_crash_at_every_write_of_a_life() -> None:
    """Power goes at each change of the disk in turn: what was answered comes once; what was recalled, never."""

    async def life(broker: Broker, sent: list[str], recalled: list[str]) -> None:
        handles = await send(broker, 1, 2, 3)
        sent += ["m0", "m1", "m2"]
        if (await recall(broker, handles[1])).status.code == Code.OK:
            recalled.append("m1")
        await asyncio.sleep(5)

    async def one(cut_at: int) -> bool:
        """-> whether power went."""
        broker = await started()
        changes = broker.shard.disk.changes
        broker.shard.disk.power_cut_at = changes + cut_at
        sent: list[str] = []
        recalled: list[str] = []
        work = asyncio.ensure_future(life(broker, sent, recalled))
        await asyncio.wait([work], timeout=8)
        went = broker.shard.core is None
        work.cancel()
        if went:
            await broker.shard.start()
        broker.shard.disk.power_cut_at = None
        await asyncio.sleep(5)
        got = await delivered(broker)
        assert len(got) == len(set(got)), f"twice, after a cut at {cut_at}: {got}"
        assert set(sent) - {"m1"} <= set(got), f"lost after a cut at {cut_at}: {got}"
        assert not set(recalled) & set(got), f"recalled and delivered, after a cut at {cut_at}: {got}"
        return went

    @simulated
    async def run() -> None:
        cut_at = 1
        while await one(cut_at):
            cut_at += 1
        assert cut_at > 8, "the test cut nothing"

    run()


# What becomes of them otherwise


@simulated
async def test_they_go_with_their_topic() -> None:
    broker = await started()
    (handle, _) = await send(broker, 1, 100)
    await broker.put_topic("later", version=2, type=DELAY, deleted=True)
    assert pending(broker) == 0
    assert (await recall(broker, handle)).status.code == Code.TOPIC_NOT_FOUND
    await broker.put_topic("later", version=3, type=DELAY)
    assert (await recall(broker, handle)).status.code == Code.NOT_FOUND
    await send(broker, 0.5, first=7)
    await broker.crash()
    await asyncio.sleep(200)
    assert await delivered(broker) == ["m7"]


@simulated
async def test_a_topic_deleted_while_they_fire() -> None:
    broker = await started()
    await send(broker, *[1.0] * 2000)
    portions: list[int] = []

    def delete(count: int) -> None:
        portions.append(count)
        if len(portions) == 3:
            broker.core.definitions.put_topic(topic_definition("later", version=2, type=DELAY, deleted=True))

    at_each_portion(broker, delete)
    await asyncio.sleep(5)
    assert len(portions) > 3, "what was read fires into nothing"
    assert pending(broker) == 0
    await broker.crash()
    assert pending(broker) == 0


@simulated
async def test_a_full_disk_delays_them_further() -> None:
    broker = await started(disk_watermark_bytes=MIB)
    await send(broker, 2, 4)
    disk = broker.shard.disk
    room_bytes, disk.capacity_bytes = disk.capacity_bytes, disk.used_bytes()
    await asyncio.sleep(10)
    assert await delivered(broker) == []
    assert broker.core.firing.lag_ms > 7000
    assert "disk" in broker.core.firing.refused_reason
    disk.capacity_bytes = room_bytes
    await asyncio.sleep(3)
    assert await delivered(broker) == ["m0", "m1"]
    assert not broker.core.firing.refused_reason
    await send(broker, 1, first=2)
    await asyncio.sleep(2)
    assert broker.core.firing.lag_ms < 100


@simulated
async def test_what_a_repair_cut_out_of_the_log_is_given_up() -> None:
    """A snapshot knows a message that lies in a void frame now: it is lost, and holds nobody up."""
    broker = await started()
    await send(broker, 1)
    await send(broker, 1, first=1)
    await broker.core.journal.durable()
    lost = next(iter(next(iter(broker.core.state.timers.values()))))
    read = broker.core.log.read

    async def void(position: int, length: int) -> bytes:
        return bytes(length) if position == lost.place.position else await read(position, length)

    broker.core.log.read = void  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logs:
        await asyncio.sleep(2)
    assert [entry["messages"] for entry in logs] == [1]
    assert await delivered(broker) == ["m1"]
    await broker.crash()
    assert pending(broker) == 0


@simulated
async def test_what_cannot_be_read_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad spot of the disk: its messages are tried again, and the others of the topic come meanwhile."""
    monkeypatch.setattr(firing, "_READ_TOGETHER", 2)
    broker = await started()
    await send(broker, 1, 1, 1)
    await send(broker, 2, first=3)
    bad = next(iter(next(iter(broker.core.state.timers.values()))))
    read = broker.core.log.read_at_most

    async def failing(position: int, length: int) -> bytes:
        if position == bad.place.position:
            raise OSError("input/output error")
        return await read(position, length)

    broker.core.log.read_at_most = failing  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logs:
        await asyncio.sleep(8)
        assert await delivered(broker) == ["m3"]
    assert {entry["position"] for entry in logs} == {bad.place.position}
    assert len(logs) < 10
    broker.core.log.read_at_most = read  # type: ignore[method-assign]
    await asyncio.sleep(5)
    assert await delivered(broker) == ["m0", "m1", "m2"]


# Retention


async def fill(broker: Broker, messages: int) -> None:
    for _ in range(messages):
        assert (await broker.send(message(bytes(1000)))).status.code == Code.OK


async def drop(broker: Broker) -> None:
    """See test_retention."""
    for _ in range(3):
        await broker.shard.process.start(broker.core.check_retention())
        await fill(broker, 15)
    await broker.shard.process.start(broker.core.check_retention())


async def small(**settings: Any) -> Broker:
    fields: dict[str, Any] = {
        "segment_bytes": 16 * KIB,
        "snapshot_every_bytes": 16 * KIB,
        "retention_interval_s": 1_000_000,
        "retention_hours": 0,
        "retention_bytes": 32 * KIB,
        **settings,
    }
    return await started(**fields)


@WAYS
def test_they_outlive_the_segment_they_came_in(again: Any) -> None:
    @simulated
    async def run() -> None:
        broker = await small()
        handles = await send(broker, *(1000 + number for number in range(20)), body=bytes(200))
        sent_ms = broker.now_ms()
        for _ in range(3):
            end = broker.core.log.next_position
            await asyncio.sleep(50)
            await fill(broker, 60)
            await drop(broker)
            assert broker.core.log.first_position > end - 32 * KIB
            await again(broker)
        assert broker.core.log.first_position > RecallHandle.parse(handles[0]).position
        assert pending(broker) == 20
        assert (await recall(broker, handles[3])).message_id == "m3"
        assert (await recall(broker, handles[19])).message_id == "m19"
        await again(broker)
        assert (await recall(broker, handles[3])).status.code == Code.NOT_FOUND
        await asyncio.sleep(1000)
        (got, *_) = await broker.receive(topic="later", batch_size=1)
        assert len(got.body) == 200
        assert broker.now_ms() > sent_ms
        await broker.ack(got, topic="later")
        assert await delivered(broker) == [f"m{number}" for number in range(1, 19) if number != 3]

    run()


@simulated
async def test_what_fires_or_is_recalled_while_it_is_carried() -> None:
    broker = await small(cache_bytes=0)
    handles: list[str] = []
    for start in range(0, 100, 20):
        handles += await send(broker, *(20 + (start + number) / 100 for number in range(20)), first=start)
    await fill(broker, 100)
    await until(lambda: pending(broker) < 95, 30)
    dropping = broker.shard.process.start(broker.core.check_retention())
    recalled: list[str] = []
    for handle in reversed(handles[60:]):
        answer = await recall(broker, handle)
        assert answer.status.code in (Code.OK, Code.NOT_FOUND)
        recalled += [answer.message_id] if answer.status.code == Code.OK else []
    await dropping
    got = await delivered(broker)  # what has fired is a message like any other, which retention takes
    await drop(broker)
    await broker.crash()
    await asyncio.sleep(10)
    got += await delivered(broker)
    assert len(got) == len(set(got))
    assert recalled
    assert {*got, *recalled} == {f"m{number}" for number in range(100)}
    assert not {*got} & {*recalled}


@simulated
async def test_more_than_retention_allows_is_not_copied_for_ever() -> None:
    broker = await small()
    for start in range(0, 100, 5):
        await send(broker, *[10_000.0] * 5, first=start, body=bytes(1000))
    await fill(broker, 60)
    await drop(broker)
    log = broker.core.log
    ends: list[int] = []
    for _ in range(10):
        await broker.shard.process.start(broker.core.check_retention())
        ends.append(log.next_position)
    assert ends[-1] == ends[3], "without new messages there is nothing to copy"
    written, sizes = log.next_position, list[int]()
    for _ in range(20):
        await fill(broker, 30)
        await broker.shard.process.start(broker.core.check_retention())
        sizes.append(log.next_position - log.first_position)
    assert log.next_position - written < 3 * 20 * 30 * 1100, "more is copied than comes in"
    assert max(sizes) < 32 * KIB + 4 * 110_000
    assert pending(broker) == 100


@simulated
async def test_the_state_is_the_same_from_the_log_and_from_a_snapshot() -> None:
    broker = await small()
    handles = await send(broker, *range(40, 60), body=bytes(50))
    await fill(broker, 60)
    await drop(broker)
    await recall(broker, handles[19])
    await asyncio.sleep(45)
    before = facts(broker.core.state)
    assert 0 < pending(broker) < 19
    await broker.crash()
    assert facts(broker.core.state) == before
    again, _position = snapshot.decode(snapshot.encode(broker.core.state, 1))
    assert facts(again) == before


@simulated
async def test_a_start_from_the_older_snapshot_finds_the_carried_ones() -> None:
    broker = await small()
    await send(broker, *range(1000, 1010))
    await fill(broker, 60)
    await drop(broker)
    newest, _older = fold.snapshots(broker.core.medium)
    broker.core.medium.drop_blob(fold.snapshot_name(newest))
    await broker.crash()
    await asyncio.sleep(1100)
    assert await delivered(broker) == [f"m{number}" for number in range(10)]


# Seen from outside


@simulated
async def test_what_the_broker_says_of_them() -> None:
    broker = await started()
    await send(broker, 5, 10, 15, 4000)
    await broker.put_topic("idle", type=DELAY)
    described = await broker.doors.call(broker_rpc.DESCRIBE_BROKER, broker_pb2.DescribeBrokerRequest(), {})
    assert [(held.topic.name, held.delayed, held.half) for held in described.held_messages] == [("later", 4, 0)]
    figures = await shown(broker)
    assert figures("rocketmq_timing_messages", topic="later", **DISK) == 4
    assert figures("rocketmq_timing_messages", topic="idle", **DISK) == 0
    assert figures("rocketmq_timer_enqueue_total", topic="later", **DISK) == 4
    asked = figures("rocketmq_delay_message_latency_seconds", topic="later", **DISK)
    assert asked.cumulative()[:4] == [(60, 3), (600, 3), (3600, 3), (43_200, 4)]
    assert 4020 < asked.sum <= 4030
    waiting = {
        labels["timer_bound_s"]: count for labels, count in figures.all("rocketmq_timer_message_snapshot") if count
    }
    assert waiting == {"5": 1, "60": 2, "14400": 1}
    await asyncio.sleep(11)
    figures = await shown(broker)
    assert figures("rocketmq_timing_messages", topic="later", **DISK) == 2
    assert figures("rocketmq_timer_dequeue_total", topic="later", **DISK) == 2
    assert figures("rocketmq_timer_dequeue_lag", **DISK) == 0
    assert 0 <= figures("rocketmq_timer_dequeue_latency_milliseconds", **DISK) < 100
    broker.core.journal._max_waiting_bytes = 0  # type: ignore[attr-defined]
    broker.shard.max_sync_s = 100
    waiting = asyncio.ensure_future(broker.send(message()))
    await asyncio.sleep(7)
    figures = await shown(broker)
    assert 2000 < figures("rocketmq_timer_dequeue_latency_milliseconds", **DISK) < 4000
    assert figures("rocketmq_timer_dequeue_lag", **DISK) == 1
    await waiting
    await asyncio.sleep(100)
    described = await broker.doors.call(broker_rpc.DESCRIBE_BROKER, broker_pb2.DescribeBrokerRequest(), {})
    assert [held.delayed for held in described.held_messages] == [1]


# Recall


@simulated
async def test_a_recalled_message_never_comes() -> None:
    broker = await started()
    handles = await send(broker, 5, 6, 7)
    answer = await recall(broker, handles[1])
    assert (answer.status.code, answer.message_id) == (Code.OK, "m1")
    assert broker.core.log.durable_position == broker.core.log.next_position, "an answer from memory alone"
    await power_cut(broker)
    await asyncio.sleep(10)
    assert await delivered(broker) == ["m0", "m2"]


@simulated
async def test_what_was_delivered_or_recalled_cannot_be_recalled() -> None:
    broker = await started()
    handles = await send(broker, 1, 600)
    await asyncio.sleep(2)
    answer = await recall(broker, handles[0])
    assert (answer.status.code, answer.message_id) == (Code.NOT_FOUND, "")
    codes = [answer.status.code for answer in await asyncio.gather(*(recall(broker, handles[1]) for _ in range(3)))]
    assert sorted(codes) == [Code.OK, Code.NOT_FOUND, Code.NOT_FOUND]


@simulated
async def test_handles_that_do_not_fit() -> None:
    broker = await started()
    await broker.put_topic("other", type=DELAY)
    (handle,) = await send(broker, 600)
    assert (await recall(broker, handle, "other")).status.code == Code.BAD_REQUEST
    parsed = RecallHandle.parse(handle)
    assert parsed.message_id == "m0"
    for wrong in (
        parsed._replace(due_ms=parsed.due_ms + 1),
        parsed._replace(position=parsed.position + 1),
        parsed._replace(index=parsed.index + 1),
        parsed._replace(message_id="m1"),
    ):
        assert (await recall(broker, str(wrong))).status.code == Code.NOT_FOUND, wrong
    assert (await recall(broker, str(parsed._replace(broker="broker-b")))).status.code == Code.PROXY_TIMEOUT
    normal = str(parsed._replace(topic="orders"))
    assert (await recall(broker, normal, "orders")).status.code == Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE
    assert pending(broker) == 1


@pytest.mark.parametrize(
    "text",
    ["", "x", "ünicode", "%%%%", "A" * 10_000, "v1 t b 1 id 2 3"]
    + [
        urlsafe_b64encode(plain.encode()).decode()
        for plain in (
            "v2 later broker-a 1 m0 1 1",
            "v1 later broker-a 1 m0 1",
            "v1 later broker-a -1 m0 1 1",
            "v1 later broker-a 1 m0 x 1",
            f"v1 later broker-a {1 << 44} m0 1 1",
            f"v1 later broker-a 1 m0 {1 << 56} 1",
            f"v1 later broker-a 1 m0 1 {1 << 24}",
            "v1 later broker-a ١ m0 1 1",
            "\x00",
        )
    ],
)
def test_what_is_no_handle_is_refused(text: str) -> None:
    @simulated
    async def run() -> None:
        broker = await started()
        answer = await recall(broker, text)
        assert answer.status.code == Code.BAD_REQUEST
        assert "recall_handle" in answer.status.message

    run()


def test_a_handle_is_read_as_it_was_written() -> None:
    handle = RecallHandle("ns%later", "broker-a", 1_700_000_000_000, "an id with spaces", 1 << 50, 77)
    assert RecallHandle.parse(str(handle)) == handle
