"""A backup is what a crash at its beginning would have left, whatever the broker does while it is made."""

import asyncio
from collections.abc import Sequence
from errno import EIO
from typing import Any

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.broker.v1 import broker_rpc
from kourou.protocol.kourou.broker.v1.broker_pb2 import BackUpRequest, BackUpResponse
from kourou_broker.operations import backup
from kourou_service import door
from tests.simulation.direct import CallFailed, DirectCall
from tests.simulation.disk import SimMedium
from tests.unit.broker.alone import Broker, message, simulated, until

Code = definition_pb2.Code
KIB = 1024


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "PIECE_BYTES", 4 * KIB)


async def _broker(**settings: Any) -> Broker:
    fields: dict[str, Any] = {
        "segment_bytes": 16 * KIB,
        "snapshot_every_bytes": 16 * KIB,
        "retention_interval_s": 1_000_000,
        "retention_hours": 0,
        "retention_bytes": 0,
        **settings,
    }
    return await Broker.started(**fields)


async def _fill(broker: Broker, messages: int, first: int = 0) -> None:
    for number in range(first, first + messages):
        body = f"{number} ".encode().ljust(1000, b".")
        assert (await broker.send(message(body, f"m{number}"))).status.code == Code.OK


async def _back_up(broker: Broker) -> list[BackUpResponse]:
    return await broker.doors.stream_call(broker_rpc.BACK_UP, BackUpRequest(), {})


def _begin(broker: Broker) -> DirectCall:
    call = broker.doors.open(broker_rpc.BACK_UP, {})  # type: ignore[arg-type]
    call.requests.put_nowait(b"")
    return call


def _hold_after(call: DirectCall, answers: int) -> asyncio.Event:
    """The client takes so many answers, and the others when the event is set."""
    go_on = asyncio.Event()
    take = call.send

    async def send(response: bytes) -> None:
        if len(call.answers) >= answers:
            await go_on.wait()
        await take(response)

    call.send = send  # type: ignore[method-assign]
    return go_on


def _answers(call: DirectCall) -> list[BackUpResponse]:
    return [BackUpResponse.FromString(answer) for answer in call.answers]


def _files(answers: Sequence[BackUpResponse]) -> dict[str, bytes]:
    """As the contract of BackUpResponse has it."""
    first, *pieces, last = answers
    assert all(answer.status.code == Code.OK for answer in answers), answers[-1].status
    assert first.total_bytes == sum(len(piece.data) for piece in pieces)
    assert last.HasField("log_position")
    assert not last.data
    assert not last.file
    files: dict[str, bytearray] = {}
    for piece in pieces:
        file = files.setdefault(piece.file, bytearray(piece.size_bytes))
        assert piece.file == list(files)[-1], "the pieces of a file come one after the other"
        assert len(file) == piece.size_bytes
        assert piece.offset + len(piece.data) <= len(file)
        file[piece.offset : piece.offset + len(piece.data)] = piece.data
    return {name: bytes(file) for name, file in files.items()}


async def _restored(broker: Broker, answers: Sequence[BackUpResponse]) -> Broker:
    """A broker that was started on the copy, and reaches exactly as far as it says."""
    files = _files(answers)
    twin = Broker()
    twin.shard.settings = broker.shard.settings.model_copy(update={"retention_interval_s": 1_000_000})
    disk = twin.shard.disk
    disk.identity = files.pop("identity")
    for path, data in files.items():
        folder, _, name = path.partition("/")
        if folder == "segments":
            with_disk = SimMedium(disk)
            with_disk.prepare(len(data))
            with_disk.create(int(name.removesuffix(".segment"), 16), len(data))
            with_disk.write(int(name.removesuffix(".segment"), 16), 0, [data])
            with_disk.sync(int(name.removesuffix(".segment"), 16))
            with_disk.close()
        else:
            assert folder == "blobs"
            disk.blobs[name] = data
    await twin.shard.start()
    assert twin.core.log.next_position == answers[-1].log_position
    return twin


async def _numbers(broker: Broker) -> list[int]:
    """Of all messages that can be pulled."""
    offset = (await broker.query_offset(definition_pb2.BEGINNING)).offset
    numbers: list[int] = []
    while True:
        messages, offset = await broker.pull(offset=offset)
        if not messages:
            return numbers
        numbers += [int(one.body.split()[0]) for one in messages]


@simulated
async def test_an_idle_broker() -> None:
    broker = await _broker()
    await _fill(broker, 100)
    await broker.shard.process.start(broker.core.check_retention())
    await broker.ack(*await broker.receive(batch_size=10))
    held = await broker.receive(batch_size=5, invisible_s=3600)
    await asyncio.sleep(1)
    answers = await _back_up(broker)
    files = _files(answers)
    assert files["identity"] == broker.shard.disk.identity
    assert {name: data for name, data in files.items() if name.startswith("segments/")} == {
        f"segments/{base:016x}.segment": bytes(segment.durable)
        for base, segment in broker.shard.disk.segments.items()
        if base < answers[-1].log_position
    }
    blobs = {name.removeprefix("blobs/"): data for name, data in files.items() if name.startswith("blobs/")}
    rebuilt = ("keys-", "history-")
    assert blobs == {name: data for name, data in broker.shard.disk.blobs.items() if not name.startswith(rebuilt)}
    assert {name.partition("-")[0] for name in blobs} == {"snapshot", "queues"}
    assert answers[0].total_bytes < sum(map(len, files.values())) - 4 * KIB, "what is not written yet is not sent"

    twin = await _restored(broker, answers)
    assert await _numbers(twin) == list(range(100))
    assert (await twin.offset()).offset == 10
    assert await twin.ack(held[0]) == Code.OK, "a restored broker knows the receipt handles"
    assert [one.body.split()[0] for one in await twin.receive(batch_size=1)] == [b"15"]
    await _fill(twin, 50, 1000)
    await twin.restart()
    assert len(await _numbers(twin)) == 150


@simulated
async def test_a_broker_that_has_nothing() -> None:
    broker = Broker()
    await broker.shard.start()
    twin = await _restored(broker, await _back_up(broker))
    await twin.put_topic("orders")
    await twin.send_ids("m1")


@simulated
async def test_only_what_is_durable_is_in_it() -> None:
    broker = await _broker()
    await _fill(broker, 3)
    sending = asyncio.create_task(_fill(broker, 1, 3))
    log = broker.core.log
    await asyncio.sleep(0)  # the call is handled
    await asyncio.sleep(0)  # and its turn ended
    assert log.durable_position < log.next_position
    durable = log.durable_position
    answers = await _back_up(broker)
    assert answers[-1].log_position == durable
    await sending
    assert await _numbers(await _restored(broker, answers)) == [0, 1, 2]


@pytest.mark.parametrize("flush", ["sync", "async"])
@simulated
async def test_under_load_while_retention_works(flush: str) -> None:
    broker = await _broker(retention_bytes=64 * KIB, retention_interval_s=0.05, flush=flush)
    await _fill(broker, 100)
    acked: set[int] = set()
    sent = 100

    async def send() -> None:
        nonlocal sent
        while True:
            await _fill(broker, 1, sent)
            sent += 1

    async def consume() -> None:
        while True:
            received = await broker.receive(batch_size=3, wait_s=1)
            await broker.ack(*received)
            acked.update(one.system_properties.queue_offset for one in received)

    load = [asyncio.create_task(send()), asyncio.create_task(consume())]
    for _ in range(5):
        await asyncio.sleep(1)
        sent_before, acked_before, first_before = sent, set(acked), broker.core.log.first_position
        answers = await _back_up(broker)
        assert sent > sent_before + 10, "the load stood still"
        twin = await _restored(broker, answers)
        numbers = await _numbers(twin)
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert numbers[-1] >= sent_before - 1
        assert min(int(name[9:25], 16) for name in _files(answers) if name.startswith("segments/")) >= first_before
        lent_again = {one.system_properties.queue_offset for one in await twin.receive(batch_size=1000)}
        assert lent_again
        assert not lent_again & acked_before
        assert broker.core.log.first_position > first_before, "retention stood still"
    for task in load:
        task.cancel()


@simulated
async def test_retention_takes_what_is_copied_and_nothing_else() -> None:
    broker = await _broker(retention_bytes=32 * KIB)
    await _fill(broker, 150)
    before = broker.core.log.segments()
    call = _begin(broker)
    go_on = _hold_after(call, 14)
    await until(lambda: len(call.answers) == 14)
    await broker.shard.process.start(broker.core.check_retention())
    copied = [int(one.file[9:25], 16) for one in _answers(call) if one.file.startswith("segments/")][-1]
    assert before[0].base < broker.core.log.first_position <= copied < before[-5].base
    assert 0 < (await _numbers(broker))[0] <= 45, "what is kept can be read"
    go_on.set()
    await call.ended
    twin = await _restored(broker, _answers(call))
    assert await _numbers(twin) == list(range(150))
    await broker.shard.process.start(broker.core.check_retention())
    assert broker.core.log.first_position > before[-6].base


@simulated
async def test_what_retention_was_about_to_drop_when_a_backup_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = await _broker(retention_bytes=32 * KIB)
    await _fill(broker, 150)
    log = broker.core.log
    drop_before = log.drop_before
    calls: list[tuple[DirectCall, asyncio.Event]] = []

    async def begin_and_drop(position: int) -> None:
        call = _begin(broker)
        calls.append((call, _hold_after(call, 3)))
        await until(lambda: len(call.answers) == 3)
        await drop_before(position)

    monkeypatch.setattr(log, "drop_before", begin_and_drop)
    await broker.shard.process.start(broker.core.check_retention())
    ((call, go_on),) = calls
    assert log.first_position == 0
    go_on.set()
    await call.ended
    twin = await _restored(broker, _answers(call))
    assert await _numbers(twin) == await _numbers(broker)
    monkeypatch.undo()
    await broker.shard.process.start(broker.core.check_retention())
    assert log.first_position > 0


@simulated
async def test_a_full_disk_does_not_wait_for_a_backup() -> None:
    broker = await _broker(retention_bytes=32 * KIB, disk_watermark_bytes=1 << 20)
    await _fill(broker, 150)
    call = _begin(broker)
    go_on = _hold_after(call, 5)  # within the first segment
    await until(lambda: len(call.answers) == 5)
    await broker.shard.process.start(broker.core.check_retention())
    assert broker.core.log.first_position == 0
    broker.shard.disk.capacity_bytes = broker.shard.disk.used_bytes() + 64 * KIB
    await until(lambda: not broker.core.log.writable_messages)
    await broker.shard.process.start(broker.core.check_retention())
    assert broker.core.log.first_position > 0
    (refused,) = await _back_up(broker)
    assert refused.status.code == Code.TOO_MANY_REQUESTS, "the one that was given up has not ended yet"
    go_on.set()
    await call.ended
    last = _answers(call)[-1]
    assert last.status.code == Code.INTERNAL_SERVER_ERROR
    assert "disk is full" in last.status.message
    assert not last.HasField("log_position")


@simulated
async def test_one_at_a_time() -> None:
    broker = await _broker()
    await _fill(broker, 50)
    call = _begin(broker)
    await until(lambda: bool(call.answers))
    (refused,) = await _back_up(broker)
    assert refused.status.code == Code.TOO_MANY_REQUESTS
    await call.ended
    assert _files(_answers(call))
    assert _files(await _back_up(broker))


@simulated
async def test_who_leaves_holds_nothing_back() -> None:
    broker = await _broker(retention_bytes=32 * KIB)
    await _fill(broker, 100)
    call = _begin(broker)
    await until(lambda: len(call.answers) > 3)
    assert broker.core.log.kept_from is not None
    call.cancel()
    await until(lambda: broker.core.log.kept_from is None)
    await broker.shard.process.start(broker.core.check_retention())
    assert broker.core.log.first_position > 0
    assert _files(await _back_up(broker))


@simulated
async def test_who_takes_nothing_gets_no_more() -> None:
    broker = await _broker()
    await _fill(broker, 100)
    call = _begin(broker)
    _hold_after(call, 3)
    with pytest.raises(CallFailed, match="DEADLINE_EXCEEDED"):
        await call.ended
    assert asyncio.get_running_loop().time() >= door.STALL_S
    assert broker.core.log.kept_from is None
    assert _files(await _back_up(broker))


@simulated
async def test_what_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = await _broker()
    await _fill(broker, 100)
    base = broker.core.log.segments()[2].base
    read = SimMedium.read

    def failing(medium: SimMedium, at: int, offset: int, size_bytes: int) -> bytes:
        if at == base:
            raise OSError(EIO, "the platter is scratched")
        return read(medium, at, offset, size_bytes)

    monkeypatch.setattr(SimMedium, "read", failing)
    *_, last = await _back_up(broker)
    assert last.status.code == Code.INTERNAL_SERVER_ERROR
    assert f"{base:016x}" in last.status.message
    assert "scratched" in last.status.message
    assert broker.core.log.kept_from is None
