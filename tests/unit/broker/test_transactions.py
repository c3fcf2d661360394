"""Half messages: out of sight until they are committed, asked about while they are open, each with one end."""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_broker.state import fold
from tests.simulation.direct import BrokerDown, DirectCall
from tests.simulation.time import simulate
from tests.unit.broker.alone import MIB, Broker, Message, ids, message, resource, simulated, until
from tests.unit.broker.test_metrics import shown

Code = definition_pb2.Code
COMMIT, ROLLBACK = definition_pb2.COMMIT, definition_pb2.ROLLBACK
UNSPECIFIED = definition_pb2.TRANSACTION_RESOLUTION_UNSPECIFIED
KIB = 1024


async def _broker(queues: int = 1, **settings: Any) -> Broker:
    broker = await Broker.started(**settings)
    await broker.put_topic("payments", queues, type=definition_pb2.TRANSACTION)
    return broker


def _half(id_: str, body: bytes = b"body", **system: Any) -> Message:
    return message(body, id_, "payments", message_type=definition_pb2.TRANSACTION, **system)


async def _begin(broker: Broker, id_: str, **system: Any) -> str:
    """-> the transaction id."""
    answer = await broker.send(_half(id_, **system))
    assert answer.status.code == Code.OK, answer.status
    [entry] = answer.entries
    assert (entry.message_id, entry.offset) == (id_, 0)
    return entry.transaction_id


async def _end(
    broker: Broker, transaction_id: str, message_id: str, resolution: int = COMMIT, topic: str = "payments"
) -> definition_pb2.Status:
    request = service_pb2.EndTransactionRequest(
        topic=resource(topic),
        message_id=message_id,
        transaction_id=transaction_id,
        resolution=resolution,  # type: ignore[arg-type]
    )
    answer = await broker.doors.call(service_rpc.END_TRANSACTION, request, {"x-mq-client-id": "producer"})
    return answer.status


async def _seen(broker: Broker) -> list[str]:
    """The ids of what a consumer can see."""
    return sorted(ids((await broker.pull(topic="payments"))[0]))


def _producer(broker: Broker, client: str = "producer", topic: str = "payments") -> DirectCall:
    return broker.connect(client, definition_pb2.PRODUCER, topics=(topic,))


def _asked(stream: DirectCall) -> list[service_pb2.RecoverOrphanedTransactionCommand]:
    commands = map(service_pb2.TelemetryCommand.FromString, stream.answers)
    return [
        command.recover_orphaned_transaction_command
        for command in commands
        if command.HasField("recover_orphaned_transaction_command")
    ]


def _asked_ids(stream: DirectCall) -> list[str]:
    return [command.message.system_properties.message_id for command in _asked(stream)]


def _open(broker: Broker) -> list[str]:
    return sorted(half.message_id for _topic, _transaction, half in broker.core.state.half_messages)


# The ends


@simulated
async def test_nobody_sees_it_before_it_is_committed() -> None:
    broker = await _broker()
    transaction = await _begin(broker, "a")
    assert await broker.receive(topic="payments") == []
    assert await _seen(broker) == []
    assert (await _end(broker, transaction, "a")).code == Code.OK
    [received] = await broker.receive(topic="payments")
    assert received.body == b"body"
    assert received.system_properties.message_id == "a"
    assert received.system_properties.message_type == definition_pb2.TRANSACTION
    assert _open(broker) == []


@simulated
async def test_a_parked_consumer_gets_it_when_it_is_committed() -> None:
    broker = await _broker()
    transaction = await _begin(broker, "a")
    parked = asyncio.ensure_future(broker.receive(topic="payments", wait_s=20))
    await asyncio.sleep(1)
    assert not parked.done()
    await _end(broker, transaction, "a")
    assert ids(await parked) == ["a"]


@simulated
async def test_nobody_ever_sees_it_when_it_is_rolled_back() -> None:
    broker = await _broker()
    transaction = await _begin(broker, "a")
    assert (await _end(broker, transaction, "a", ROLLBACK)).code == Code.OK
    assert _open(broker) == []
    await broker.crash()
    assert await _seen(broker) == []
    assert _open(broker) == []


@simulated
async def test_a_producer_that_does_not_know_yet_leaves_it_open() -> None:
    broker = await _broker()
    transaction = await _begin(broker, "a")
    assert (await _end(broker, transaction, "a", UNSPECIFIED)).code == Code.OK
    assert (await _seen(broker), _open(broker)) == ([], ["a"])
    assert (await _end(broker, transaction, "a")).code == Code.OK
    assert await _seen(broker) == ["a"]


@simulated
async def test_committed_messages_are_spread_over_the_queues() -> None:
    broker = await _broker(queues=3)
    for id_ in "abc":
        await _end(broker, await _begin(broker, id_), id_)
    assert [ids((await broker.pull(topic="payments", queue=queue))[0]) for queue in range(3)] == [["a"], ["b"], ["c"]]


@simulated
async def test_those_of_one_turn_have_transactions_of_their_own() -> None:
    broker = await _broker()
    transactions = await asyncio.gather(*(_begin(broker, id_) for id_ in "abcde"))
    assert len(set(transactions)) == 5
    answers = await asyncio.gather(
        *(_end(broker, transaction, id_) for transaction, id_ in zip(transactions, "abcde", strict=True) if id_ != "c")
    )
    assert {answer.code for answer in answers} == {Code.OK}
    assert (await _seen(broker), _open(broker)) == (["a", "b", "d", "e"], ["c"])


@simulated
async def test_two_ends_at_once_copy_it_once() -> None:
    broker = await _broker(cache_bytes=0)  # the half message is read from the disk: meanwhile others come
    transaction = await _begin(broker, "a")
    answers = await asyncio.gather(*(_end(broker, transaction, "a") for _ in range(5)))
    assert {answer.code for answer in answers} == {Code.OK}
    assert await _seen(broker) == ["a"]


@simulated
async def test_of_a_commit_and_a_rollback_at_once_one_holds() -> None:
    broker = await _broker(cache_bytes=0)
    transaction = await _begin(broker, "a")
    commit, rollback = await asyncio.gather(_end(broker, transaction, "a"), _end(broker, transaction, "a", ROLLBACK))
    assert sorted((commit.code, rollback.code)) == [Code.OK, Code.INVALID_TRANSACTION_ID]
    assert await _seen(broker) == (["a"] if commit.code == Code.OK else [])


@simulated
async def test_an_end_whose_answer_was_lost_can_be_repeated_but_not_changed() -> None:
    broker = await _broker()
    committed, rolled_back = await _begin(broker, "a"), await _begin(broker, "b")
    for _ in range(3):
        assert (await _end(broker, committed, "a")).code == Code.OK
        assert (await _end(broker, rolled_back, "b", ROLLBACK)).code == Code.OK
    late = await _end(broker, committed, "a", ROLLBACK)
    assert (late.code, "was committed" in late.message) == (Code.INVALID_TRANSACTION_ID, True)
    late = await _end(broker, rolled_back, "b")
    assert (late.code, "was rolled back" in late.message) == (Code.INVALID_TRANSACTION_ID, True)
    assert (await _end(broker, rolled_back, "b", UNSPECIFIED)).code == Code.INVALID_TRANSACTION_ID
    assert await _seen(broker) == ["a"]


@simulated
async def test_a_topic_takes_its_half_messages_with_it() -> None:
    broker = await _broker()
    transaction = await _begin(broker, "a")
    await broker.put_topic("payments", version=2, deleted=True)
    assert (await _end(broker, transaction, "a")).code == Code.TOPIC_NOT_FOUND
    await broker.put_topic("payments", version=3, type=definition_pb2.TRANSACTION)
    assert (await _end(broker, transaction, "a")).code == Code.INVALID_TRANSACTION_ID
    assert _open(broker) == []
    await broker.crash()
    assert _open(broker) == []


@simulated
async def test_a_half_message_sent_again_has_the_transaction_that_it_had() -> None:
    broker = await _broker()
    first, at_once = await asyncio.gather(_begin(broker, "a"), _begin(broker, "a"))
    assert first == at_once == await _begin(broker, "a")
    assert _open(broker) == ["a"]
    assert (await _end(broker, first, "a")).code == Code.OK
    assert await _begin(broker, "a") == first
    assert (await _end(broker, first, "a")).code == Code.OK, "a sender whose answers were lost sees nothing of it"
    assert (await _seen(broker), _open(broker)) == (["a"], [])


@simulated
async def test_a_broker_that_takes_no_more_messages_ends_what_is_open() -> None:
    broker = await _broker()
    transactions = {id_: await _begin(broker, id_) for id_ in "ab"}
    request = broker_pb2.SetPermissionRequest(permission=definition_pb2.READ)
    await broker.doors.call(broker_rpc.SET_PERMISSION, request, {})
    assert (await broker.send(_half("c"))).status.code == Code.FORBIDDEN
    described = await broker.doors.call(broker_rpc.DESCRIBE_BROKER, broker_pb2.DescribeBrokerRequest(), {})
    assert [(held.topic.name, held.delayed, held.half) for held in described.held_messages] == [("payments", 0, 2)]
    assert (await _end(broker, transactions["a"], "a")).code == Code.OK
    assert (await _end(broker, transactions["b"], "b", ROLLBACK)).code == Code.OK
    described = await broker.doors.call(broker_rpc.DESCRIBE_BROKER, broker_pb2.DescribeBrokerRequest(), {})
    assert not described.held_messages
    assert await _seen(broker) == ["a"]


@simulated
async def test_what_metrics_say() -> None:
    broker = await _broker(transaction_max_age_hours=1)
    await broker.put_topic("quiet", type=definition_pb2.TRANSACTION)
    for id_, resolution in (("a", COMMIT), ("b", COMMIT), ("c", ROLLBACK)):
        await _end(broker, await _begin(broker, id_), id_, resolution)
    for id_ in "xyz":
        await _begin(broker, id_)
    late = await _begin(broker, "late")
    await asyncio.sleep(30)
    await _end(broker, late, "late", COMMIT)

    async def half() -> dict[str, int]:
        return {labels["topic"]: value for labels, value in (await shown(broker)).all("rocketmq_half_messages")}

    async def ends(topic: str) -> dict[str, int]:
        figures = await shown(broker)
        return {
            "committed": figures("rocketmq_commit_messages_total", topic=topic),
            "rolled_back": figures("rocketmq_rollback_messages_total", topic=topic),
            "given_up": figures("kourou_transactions_given_up_total", topic=topic),
        }

    assert await half() == {"payments": 3, "quiet": 0}
    assert await ends("payments") == {"committed": 3, "rolled_back": 1, "given_up": 0}
    open_s = (await shown(broker))("rocketmq_finish_message_latency_milliseconds", topic="payments")
    assert open_s.cumulative()[:2] == [(5, 2), (60, 3)]
    assert 30 <= open_s.sum < 32
    assert await ends("quiet") == {"committed": 0, "rolled_back": 0, "given_up": 0}
    received = await shown(broker)
    counted = received("rocketmq_messages_in_total", topic="payments", message_type="transaction", is_system="false")
    assert counted == 3, "a half message is in no queue"
    await until(lambda: not _open(broker), 3700)
    assert (await ends("payments"))["given_up"] == 3
    await broker.put_topic("payments", version=2, deleted=True)
    assert await half() == {"quiet": 0}


# Bad input


@simulated
async def test_ends_that_make_no_sense_are_refused_and_change_nothing() -> None:
    broker = await _broker()
    await broker.put_topic("others", type=definition_pb2.TRANSACTION)
    transaction = await _begin(broker, "a")
    for unknown in (
        "",
        "x",
        "0" * 24,
        transaction.lower() + "!",
        "-" + transaction[1:],
        "é" * 24,
        "F" * 24,
        "1" * 9999,
    ):
        for resolution in (COMMIT, ROLLBACK, UNSPECIFIED):
            assert (await _end(broker, unknown, "a", resolution)).code == Code.INVALID_TRANSACTION_ID, unknown
    for resolution in (COMMIT, ROLLBACK, UNSPECIFIED):
        assert (await _end(broker, transaction, "b", resolution)).code == Code.ILLEGAL_MESSAGE_ID
        assert (await _end(broker, transaction, "", resolution)).code == Code.ILLEGAL_MESSAGE_ID
        assert (await _end(broker, transaction, "a", resolution, "others")).code == Code.INVALID_TRANSACTION_ID
        assert (await _end(broker, transaction, "a", resolution, "orders")).code == Code.INVALID_TRANSACTION_ID
        assert (await _end(broker, transaction, "a", resolution, "nowhere")).code == Code.TOPIC_NOT_FOUND
    assert (await _end(broker, transaction, "a", 77)).code == Code.BAD_REQUEST
    assert (await _seen(broker), _open(broker)) == ([], ["a"])


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ([_half("a"), _half("b")], Code.BAD_REQUEST),
        ([message(topic="payments", message_type=definition_pb2.NORMAL)], Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        ([message(message_type=definition_pb2.TRANSACTION)], Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        ([_half("a", message_group="g")], Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        ([_half("a", priority=1)], Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        ([_half("")], Code.ILLEGAL_MESSAGE_ID),
        ([_half("a", b"")], Code.MESSAGE_BODY_EMPTY),
    ],
)
@simulated
async def test_half_messages_that_make_no_sense_are_refused(sent: list[Message], code: int) -> None:
    broker = await _broker()
    answer = await broker.send(*sent)
    assert answer.status.code == code, answer.status
    assert _open(broker) == []


# Check-back


@simulated
async def test_a_producer_is_asked_again_and_again() -> None:
    broker = await _broker()
    stream = _producer(broker)
    transaction = await _begin(broker, "a", tag="t", keys=["k"])
    assert 5.9 <= await until(lambda: len(_asked(stream)) == 1) <= 6.5
    [command] = _asked(stream)
    assert command.transaction_id == transaction
    asked = command.message
    assert (asked.topic.name, asked.body) == ("payments", b"body")
    assert (asked.system_properties.message_id, asked.system_properties.tag) == ("a", "t")
    assert list(asked.system_properties.keys) == ["k"]
    assert asked.system_properties.body_digest.checksum
    for number in (2, 3):
        assert 29 <= await until(lambda number=number: len(_asked(stream)) == number, 40) <= 31
    assert (await _end(broker, transaction, "a")).code == Code.OK
    await asyncio.sleep(120)
    assert len(_asked(stream)) == 3, "nobody is asked about what has ended"


@simulated
async def test_what_ends_in_time_is_never_asked_about() -> None:
    broker = await _broker()
    stream = _producer(broker)
    for number in range(3000):
        id_ = f"m{number}"
        await _end(broker, await _begin(broker, id_), id_, (COMMIT, ROLLBACK)[number % 2])
    await asyncio.sleep(60)
    assert _asked(stream) == []


@simulated
async def test_a_message_may_say_when_it_is_first_asked_about() -> None:
    broker = await _broker()
    stream = _producer(broker)
    later, soon, never = _half("later"), _half("soon"), _half("never")
    later.system_properties.orphaned_transaction_recovery_duration.seconds = 60
    soon.system_properties.orphaned_transaction_recovery_duration.nanos = 1
    never.system_properties.orphaned_transaction_recovery_duration.seconds = 1 << 62
    for half in (later, soon, never):
        assert (await broker.send(half)).status.code == Code.OK
    await asyncio.sleep(3)
    assert _asked_ids(stream) == ["soon"]
    await asyncio.sleep(56)
    assert set(_asked_ids(stream)) == {"soon"}
    await asyncio.sleep(2)
    assert set(_asked_ids(stream)) == {"soon", "later"}


@simulated
async def test_without_a_producer_nothing_counts_and_one_that_comes_back_is_asked() -> None:
    broker = await _broker()
    stream = _producer(broker)
    await _begin(broker, "a")
    stream.cancel()
    bystander = _producer(broker, "bystander", "orders")
    consumer = broker.connect("consumer", topics=("payments",))
    await asyncio.sleep(3600)
    [(_topic, _transaction, half)] = broker.core.state.half_messages
    assert half.checks == 0
    back = _producer(broker, "another")
    assert await until(lambda: len(_asked(back)) == 1, 3) >= 1
    assert half.checks == 1
    await until(lambda: len(_asked(back)) == 2, 31)
    assert _asked(bystander) == _asked(consumer) == []


@simulated
async def test_two_producers_are_asked_in_turn() -> None:
    broker = await _broker()
    streams = [_producer(broker, client) for client in ("one", "two")]
    for id_ in "ab":
        await _begin(broker, id_)
    await asyncio.sleep(6 + 3 * 30 + 1)
    for stream in streams:
        assert Counter(_asked_ids(stream)) == {"a": 2, "b": 2}, "one that cannot tell holds up no transaction"


@simulated
async def test_a_producer_that_does_not_read_does_not_fill_the_memory() -> None:
    broker = await _broker(segment_bytes=8 << 20)
    stream = _producer(broker)
    await until(lambda: len(stream.answers) == 1)
    taken = asyncio.Event()
    answers = stream.answers

    async def send(data: bytes) -> None:
        await taken.wait()
        answers.append(data)

    stream.send = send  # type: ignore[method-assign]
    for number in range(20):
        await broker.send(_half(f"m{number}", bytes(2 << 20)))
    await asyncio.sleep(10)
    halves = [half for _topic, _transaction, half in broker.core.state.half_messages]
    assert 8 <= sum(half.checks for half in halves) < 12, "what waits for it is bounded, and the others do not count"
    taken.set()
    await until(lambda: all(half.checks for half in halves))
    assert sorted(_asked_ids(stream)) == sorted(half.message_id for half in halves)


async def _until_given_up(broker: Broker, within_s: float) -> tuple[float, list[Any]]:
    """-> after how many seconds, and the log lines that say so."""
    with structlog.testing.capture_logs() as lines:
        took_s = await until(lambda: not _open(broker), within_s)
    return took_s, [line for line in lines if "rolled back" in line["event"]]


@simulated
async def test_after_too_many_questions_it_is_rolled_back() -> None:
    broker = await _broker(transaction_max_checks=3)
    stream = _producer(broker)
    transaction = await _begin(broker, "a")
    took_s, [line] = await _until_given_up(broker, 200)
    assert 95 <= took_s <= 98, "the last question has its time, too"
    assert len(_asked(stream)) == 3
    assert (line["topic"], line["message_id"], line["checks"]) == ("payments", "a", 3)
    late = await _end(broker, transaction, "a")
    assert (late.code, "no producer said" in late.message) == (Code.INVALID_TRANSACTION_ID, True)
    assert await _seen(broker) == []


@simulated
async def test_when_it_is_too_old_it_is_rolled_back_though_nobody_could_be_asked() -> None:
    broker = await _broker(transaction_max_age_hours=2)
    await _begin(broker, "a")
    took_s, lines = await _until_given_up(broker, 3 * 3600)
    assert 7199 <= took_s <= 7202
    assert len(lines) == 1


@simulated
async def test_a_topic_may_go_while_its_half_messages_are_read() -> None:
    broker = await _broker(cache_bytes=0)
    broker.shard.max_sync_s = 1.0  # so long does reading take
    stream = _producer(broker)
    await asyncio.gather(*(_begin(broker, id_) for id_ in "abc"))
    await until(lambda: len(_asked(stream)) == 1)
    await broker.put_topic("payments", version=2, deleted=True)
    await asyncio.sleep(60)
    assert len(_asked(stream)) == 1


@simulated
async def test_many_are_asked_about_in_slices() -> None:
    broker = await _broker()
    stream = _producer(broker)
    await asyncio.gather(*(_begin(broker, f"m{number}") for number in range(300)))
    await asyncio.sleep(6.15)
    assert 0 < len(_asked(stream)) <= 192
    await until(lambda: len(_asked(stream)) == 300)


# Restarts


@simulated
async def test_a_crash_forgets_neither_transactions_nor_questions() -> None:
    broker = await _broker(transaction_max_checks=2)
    stream = _producer(broker)
    transactions = {id_: await _begin(broker, id_) for id_ in "abc"}
    await _end(broker, transactions["b"], "b")
    await until(lambda: len(_asked(stream)) == 2)
    await asyncio.sleep(1)
    await broker.crash()
    assert (await _seen(broker), _open(broker)) == (["b"], ["a", "c"])
    assert (await _end(broker, transactions["a"], "a")).code == Code.OK
    assert (await _end(broker, transactions["b"], "b")).code == Code.INVALID_TRANSACTION_ID, "it is known no more"
    assert await _seen(broker) == ["a", "b"]
    again = _producer(broker)
    assert 26 <= await until(lambda: len(_asked(again)) == 1, 40) <= 30, "the interval goes on"
    await broker.restart()
    took_s, [line] = await _until_given_up(broker, 40)
    assert 28 <= took_s <= 31
    assert line["checks"] == 2


@simulated
async def test_a_snapshot_holds_what_is_open() -> None:
    broker = await _broker(segment_bytes=16 * KIB, snapshot_every_bytes=16 * KIB, retention_interval_s=1_000_000)
    stream = _producer(broker)
    transactions = {id_: await _begin(broker, id_) for id_ in "abc"}
    await _end(broker, transactions["b"], "b")
    await until(lambda: len(_asked(stream)) == 2)
    for number in range(50):
        await broker.send(message(bytes(1000), f"m{number}"))
    await broker.shard.process.start(broker.core.check_retention())
    [position, *_] = fold.snapshots(broker.core.medium)
    assert position > 16 * KIB
    await broker.crash()
    assert _open(broker) == ["a", "c"]
    assert {half.checks for _topic, _transaction, half in broker.core.state.half_messages} == {1}
    assert (await _end(broker, transactions["c"], "c")).code == Code.OK
    assert await _seen(broker) == ["b", "c"]
    await broker.crash()
    assert (await _seen(broker), _open(broker)) == (["b", "c"], ["a"])


@simulated
async def test_it_outlives_the_segment_it_came_in_again_and_again() -> None:
    broker = await _broker(
        segment_bytes=16 * KIB,
        snapshot_every_bytes=16 * KIB,
        retention_interval_s=1_000_000,
        retention_bytes=32 * KIB,
        retention_hours=0,
        transaction_max_checks=1000,
    )
    stream = _producer(broker)
    transactions = {id_: await _begin(broker, id_) for id_ in "abcd"}
    origin = broker.core.log.next_position
    await until(lambda: len(_asked(stream)) == 4)
    for _ in range(3):
        for _ in range(3):
            for _ in range(50):
                await broker.send(message(bytes(1000)))
            await broker.shard.process.start(broker.core.check_retention())
        dropped, origin = origin, broker.core.log.next_position
        assert broker.core.log.first_position > dropped
    assert _open(broker) == ["a", "b", "c", "d"]
    assert (await _end(broker, transactions["a"], "a")).code == Code.OK
    assert (await _end(broker, transactions["b"], "b", ROLLBACK)).code == Code.OK
    asked = len(_asked(stream))
    await until(lambda: len(_asked(stream)) == asked + 2, 40)
    assert {command.message.body for command in _asked(stream)} == {b"body"}
    assert {command.transaction_id for command in _asked(stream)[-2:]} == {transactions["c"], transactions["d"]}
    await broker.crash()
    assert (await _end(broker, transactions["c"], "c")).code == Code.OK
    newest, _older = fold.snapshots(broker.core.medium)
    broker.core.medium.drop_blob(fold.snapshot_name(newest))
    await broker.crash()
    assert (await _end(broker, transactions["d"], "d")).code == Code.OK
    assert (await _seen(broker), _open(broker)) == (["a", "c", "d"], [])


@simulated
async def test_a_full_disk_leaves_it_open() -> None:
    broker = await _broker(disk_watermark_bytes=MIB)
    transactions = {id_: await _begin(broker, id_) for id_ in "ab"}
    disk = broker.shard.disk
    roomy_bytes, disk.capacity_bytes = disk.capacity_bytes, 0
    await until(lambda: not broker.core.log.writable_messages)
    assert (await _end(broker, transactions["a"], "a")).code == Code.FORBIDDEN
    assert (await _end(broker, transactions["b"], "b", ROLLBACK)).code == Code.OK, "that needs no room to speak of"
    assert (await _seen(broker), _open(broker)) == ([], ["a"])
    disk.capacity_bytes = roomy_bytes
    await until(lambda: broker.core.log.writable_messages)
    assert (await _end(broker, transactions["a"], "a")).code == Code.OK
    assert await _seen(broker) == ["a"]


# Anything in any order

_STEPS = st.one_of(
    st.just(("begin",)),
    st.tuples(st.just("end"), st.integers(0, 7), st.sampled_from((COMMIT, ROLLBACK, UNSPECIFIED))),
    st.tuples(st.just("pass"), st.sampled_from((0.0, 0.001, 0.01, 1.0, 6.0, 40.0))),
    st.tuples(st.just("down"), st.sampled_from(("power", "kill", "stop"))),
    st.tuples(st.just("producer"), st.booleans()),
    st.just(("retire",)),
)


class _Model:
    """What was asked of a broker and answered; questions may be under way when it crashes."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.transactions: list[tuple[str, str]] = []
        """Message id and transaction id of those whose begin was answered."""
        self.asked: dict[str, set[int]] = {}
        self.done: dict[str, set[int]] = {}
        self._seen: dict[int, str] = {}
        """Message ids by queue offset: retention takes what is old."""
        self._number = 0
        self._calls: list[asyncio.Future[None]] = []
        self._stream: DirectCall | None = None

    async def step(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("begin",):
                self._number += 1
                self._calls.append(asyncio.ensure_future(self._begin(f"m{self._number}")))
            case ("end", which, resolution) if self.transactions:
                self._calls.append(asyncio.ensure_future(self.end(which % len(self.transactions), resolution)))
            case ("pass", seconds):
                await asyncio.sleep(seconds)
            case ("down", how):
                await self._down(how)
            case ("producer", there):
                self._part()
                self._stream = _producer(self.broker) if there else None
            case ("retire",):
                await self._look()
                for _ in range(20):
                    await self.broker.send(message(bytes(1000), f"filler{self._number}"))
                    self._number += 1
                await self.broker.shard.process.start(self.broker.core.check_retention())
            case _:
                pass

    async def _look(self) -> None:
        """At what a consumer can see."""
        [topic] = [topic for topic in self.broker.core.state.topics.values() if topic.name.name == "payments"]
        pulled, _next = await self.broker.pull(topic="payments", offset=topic.queues[0].first_offset, batch_size=1000)
        for one in pulled:
            offset, id_ = one.system_properties.queue_offset, one.system_properties.message_id
            assert self._seen.setdefault(offset, id_) == id_

    async def _down(self, how: str) -> None:
        shard = self.broker.shard
        self._part()
        await asyncio.sleep(0)  # what was asked has reached the broker
        if how == "stop":
            await shard.stop()
        elif how == "kill":
            shard.kill()
        else:
            shard.cut_power()
        await self.answers()
        await shard.start()

    def _part(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    async def answers(self) -> None:
        calls, self._calls = self._calls, []
        await asyncio.gather(*calls)

    async def _begin(self, id_: str) -> None:
        with suppress(BrokerDown):
            self.transactions.append((id_, await _begin(self.broker, id_)))

    async def end(self, which: int, resolution: int) -> None:
        id_, transaction = self.transactions[which]
        self.asked.setdefault(id_, set()).add(resolution)
        try:
            answer = await _end(self.broker, transaction, id_, resolution)
        except BrokerDown:
            return
        assert answer.code in (Code.OK, Code.INVALID_TRANSACTION_ID), answer
        if answer.code == Code.OK:
            self.done.setdefault(id_, set()).add(resolution)

    async def check(self) -> None:
        await self._look()
        seen = Counter(self._seen.values())
        assert not seen or max(seen.values()) == 1, seen
        assert not seen.keys() & _open(self.broker), "open, and yet to be seen"
        for id_ in seen:
            assert COMMIT in self.asked.get(id_, ()), f"{id_} was never committed"
        for id_, done in self.done.items():
            assert not {COMMIT, ROLLBACK} <= done, f"{id_} ended twice"
            if COMMIT in done:
                assert seen[id_] == 1
            if ROLLBACK in done:
                assert seen[id_] == 0


@settings(max_examples=80, deadline=None)
@given(steps=st.lists(_STEPS, max_size=40))
def test_each_has_one_end_whatever_happens(steps: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        broker = await _broker(
            transaction_max_checks=2,
            transaction_max_age_hours=0.1,
            cache_bytes=0,
            segment_bytes=16 * KIB,
            snapshot_every_bytes=16 * KIB,
            retention_interval_s=1_000_000,
            retention_bytes=48 * KIB,  # what is committed while segments go can still be seen afterwards
            retention_hours=0,
        )
        model = _Model(broker)
        for step in steps:
            await model.step(step)
        await model.answers()
        await model.check()
        for which in range(len(model.transactions)):
            await model.end(which, COMMIT)
        await model.check()
        left = _open(broker)
        assert not {id_ for id_, _transaction in model.transactions} & set(left), "each commit was answered"
        await until(lambda: not _open(broker), 400)  # those whose senders never had an answer
        await model.check()
        await broker.crash()
        await model.check()
        assert not _open(broker)

    with structlog.testing.capture_logs():
        simulate(run())


@simulated
async def test_so_many_and_no_more_are_open_at_a_time() -> None:
    broker = await _broker(max_open_transactions=2)
    first = await _begin(broker, "a")
    await _begin(broker, "b")
    refused = await broker.send(_half("c"))
    assert refused.status.code == Code.TOO_MANY_REQUESTS
    await broker.restart()
    assert (await broker.send(_half("c"))).status.code == Code.TOO_MANY_REQUESTS
    assert (await _end(broker, first, "a", definition_pb2.COMMIT)).code == Code.OK
    await _begin(broker, "c")
