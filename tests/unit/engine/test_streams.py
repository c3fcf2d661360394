"""Server-streaming and bidirectional calls, on both engines."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from kourou_service.engine import AbortCall, Engine, StreamCall
from tests.unit.engine.conftest import EOF, MakeEngine, until


async def collect(call: Any) -> list[bytes]:
    """The rest of the stream; raises AioRpcError if it ends with an error."""
    messages: list[bytes] = []
    while (message := await call.read()) is not EOF:
        messages.append(message)
    if await call.code() is not StatusCode.OK:
        raise grpc.aio.AioRpcError(
            await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
        )
    return messages


async def status_of(call: Any) -> tuple[StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(call)
    return caught.value.code(), caught.value.details() or ""


async def count(call: StreamCall) -> None:
    """Server-streaming: as many messages as the request says."""
    for n in range(int(await call.receive() or b"0")):
        await call.send(b"%d" % n)


async def test_a_server_stream(engine: Engine, serve: Any) -> None:
    engine.stream("/test.Count/Stream", count)
    channel = await serve(engine)
    stream = channel.unary_stream("/test.Count/Stream")
    assert await collect(stream(b"100")) == [b"%d" % n for n in range(100)]
    assert await collect(stream(b"0")) == []


async def test_many_streams_at_once(engine: Engine, serve: Any) -> None:
    engine.stream("/test.Count/Stream", count)
    channel = await serve(engine)
    stream = channel.unary_stream("/test.Count/Stream")
    answers = await asyncio.gather(*(collect(stream(b"%d" % (n % 7))) for n in range(200)))
    assert [len(answer) for answer in answers] == [n % 7 for n in range(200)]


async def test_messages_go_both_ways_in_turn(engine: Engine, serve: Any) -> None:
    channel = await serve(engine)
    call = channel.stream_stream("/test.Echo/Bidi")()
    for n in range(50):
        await call.write(b"%d" % n)
        assert await call.read() == b"%d" % n
    await call.done_writing()
    assert await call.read() is EOF
    assert await call.code() is StatusCode.OK


async def test_both_sides_send_at_their_own_pace(engine: Engine, serve: Any) -> None:
    channel = await serve(engine)

    call = channel.stream_stream("/test.Echo/Bidi")()

    async def write() -> None:
        for n in range(500):
            await call.write(b"%d" % n)
        await call.done_writing()

    messages, _ = await asyncio.gather(collect(call), write())
    assert messages == [b"%d" % n for n in range(500)]


async def test_half_close_then_more_answers(engine: Engine, serve: Any) -> None:
    async def handler(call: StreamCall) -> None:
        received = 0
        while await call.receive() is not None:
            received += 1
        assert await call.receive() is None
        for _ in range(received):
            await call.send(b"after")

    engine.stream("/test.Half/Bidi", handler)
    channel = await serve(engine)
    call = channel.stream_stream("/test.Half/Bidi")()
    for _ in range(3):
        await call.write(b"x")
    await call.done_writing()
    assert await collect(call) == [b"after"] * 3


async def test_a_handler_that_returns_ends_the_stream(engine: Engine, serve: Any) -> None:
    async def handler(call: StreamCall) -> None:
        await call.receive()

    engine.stream("/test.Return/Bidi", handler)
    channel = await serve(engine)
    call = channel.stream_stream("/test.Return/Bidi")()
    await call.write(b"x")
    assert await call.read() is EOF
    assert await call.code() is StatusCode.OK


async def test_metadata_both_ways(engine: Engine, serve: Any) -> None:
    async def handler(call: StreamCall) -> None:
        assert call.metadata["x-mq-client-id"] == "me"
        assert call.peer.startswith("ipv4:127.0.0.1:")
        assert call.method == "/test.Meta/Bidi"
        assert call.listener == "local"
        call.set_trailing([("first", "lost")])
        call.set_trailing([("k", "v"), ("k-bin", b"\x00")])
        await call.send(b"x")

    engine.stream("/test.Meta/Bidi", handler)
    channel = await serve(engine)
    call = channel.stream_stream("/test.Meta/Bidi")(metadata=[("x-mq-client-id", "me")])
    assert await collect(call) == [b"x"]
    trailing = dict(await call.trailing_metadata())
    assert (trailing["k"], trailing["k-bin"]) == ("v", b"\x00")
    assert "first" not in trailing


@pytest.mark.parametrize("messages_before", [0, 2])
async def test_abort(engine: Engine, serve: Any, messages_before: int) -> None:
    async def handler(call: StreamCall) -> None:
        for _ in range(messages_before):
            await call.send(b"x")
        call.set_trailing([("k", "v")])
        raise AbortCall(StatusCode.PERMISSION_DENIED, "not you")

    engine.stream("/test.Abort/Bidi", handler)
    channel = await serve(engine)
    call = channel.stream_stream("/test.Abort/Bidi")()
    assert await status_of(call) == (StatusCode.PERMISSION_DENIED, "not you")
    assert dict(await call.trailing_metadata())["k"] == "v"


async def test_a_handler_that_fails_is_logged_and_tells_nothing(
    engine: Engine, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(_call: StreamCall) -> None:
        raise ValueError("secret")

    engine.stream("/test.Bug/Bidi", handler)
    channel = await serve(engine)
    with caplog.at_level(logging.ERROR):
        call = channel.stream_stream("/test.Bug/Bidi")()
        assert await status_of(call) == (StatusCode.INTERNAL, "internal error")
    assert "secret" in caplog.text


class Parked:
    """A stream handler that waits for ever, and says how it ended."""

    def __init__(self) -> None:
        self.calls: list[StreamCall] = []
        self.ends: list[bool] = []

    async def handle(self, call: StreamCall) -> None:
        self.calls.append(call)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.ends.append(call.cancelled)
            raise


async def test_a_cancel_cancels_the_handler(engine: Engine, serve: Any) -> None:
    parked = Parked()
    engine.stream("/test.Wait/Bidi", parked.handle)
    channel = await serve(engine)
    call = channel.stream_stream("/test.Wait/Bidi")()
    await call.write(b"x")
    await until(lambda: parked.calls)
    call.cancel()
    await until(lambda: parked.ends)
    assert parked.ends == [True]


async def test_a_deadline_cancels_the_handler(engine: Engine, serve: Any) -> None:
    parked = Parked()
    engine.stream("/test.Wait/Bidi", parked.handle)
    channel = await serve(engine)
    call = channel.unary_stream("/test.Wait/Bidi")(b"", timeout=0.2)
    assert (await status_of(call))[0] is StatusCode.DEADLINE_EXCEEDED
    await until(lambda: parked.ends)


async def test_a_lost_connection_cancels_the_handlers(engine: Engine) -> None:
    parked = Parked()
    engine.stream("/test.Wait/Bidi", parked.handle)
    address = engine.listen("127.0.0.1:0")
    await engine.start()
    channel = grpc.aio.insecure_channel(address)
    calls = [channel.stream_stream("/test.Wait/Bidi")() for _ in range(5)]
    for call in calls:
        await call.write(b"x")
    await until(lambda: len(parked.calls) == 5)
    await channel.close()
    await until(lambda: len(parked.ends) == 5)


async def test_a_client_that_goes_away_while_the_handler_receives_or_sends(engine: Engine, serve: Any) -> None:
    ended: list[str] = []

    async def receiving(call: StreamCall) -> None:
        try:
            while await call.receive() is not None:
                pass
        finally:
            ended.append("receiving")

    async def sending(call: StreamCall) -> None:
        try:
            while True:
                await call.send(bytes(10_000))
        finally:
            ended.append("sending")

    engine.stream("/test.Gone/Receive", receiving)
    engine.stream("/test.Gone/Send", sending)
    channel = await serve(engine)
    first, second = channel.stream_stream("/test.Gone/Receive")(), channel.stream_stream("/test.Gone/Send")()
    await first.write(b"x")
    await second.read()
    first.cancel()
    second.cancel()
    await until(lambda: sorted(ended) == ["receiving", "sending"])


async def test_a_slow_reader_slows_the_handler_down(engine: Engine, serve: Any) -> None:
    sent = 0

    async def handler(call: StreamCall) -> None:
        nonlocal sent
        while True:
            await call.send(bytes(500_000))
            sent += 1

    async def stalled() -> int:
        async with asyncio.timeout(10):
            while True:
                before = sent
                await asyncio.sleep(0.2)
                if sent == before > 0:
                    return sent

    engine.stream("/test.Slow/Stream", handler)
    channel = await serve(engine)
    call = channel.unary_stream("/test.Slow/Stream")(b"")
    at_first = await stalled()
    async with asyncio.timeout(10):
        while sent == at_first:
            assert len(await call.read()) == 500_000
    call.cancel()


async def test_a_time_limit_on_receive_loses_nothing(engine: Engine, serve: Any) -> None:
    timeouts = 0

    async def handler(call: StreamCall) -> None:
        nonlocal timeouts
        while True:
            try:
                message = await asyncio.wait_for(call.receive(), 0.02)
            except TimeoutError:
                timeouts += 1
                continue
            if message is None:
                return
            await call.send(message)

    engine.stream("/test.Limit/Bidi", handler)
    channel = await serve(engine)
    call = channel.stream_stream("/test.Limit/Bidi")()
    for n in range(3):
        before = timeouts
        await until(lambda before=before: timeouts > before)
        await call.write(b"%d" % n)
        assert await call.read() == b"%d" % n
    await call.done_writing()
    assert await call.read() is EOF


async def test_streams_over_the_limit(make_engine: MakeEngine, serve: Any) -> None:
    engine = make_engine(max_concurrent_streams=3)
    channel = await serve(engine)
    bidi = channel.stream_stream("/test.Echo/Bidi")
    calls = [bidi() for _ in range(3)]
    for call in calls:
        await call.write(b"x")
        assert await call.read() == b"x"
    assert (await status_of(bidi()))[0] is StatusCode.RESOURCE_EXHAUSTED
    await calls[0].done_writing()
    assert await calls[0].read() is EOF

    async def fits() -> bool:
        call = bidi()
        await call.done_writing()
        try:
            return await collect(call) == []
        except grpc.aio.AioRpcError:
            return False

    async with asyncio.timeout(5):
        while not await fits():
            pass


async def test_messages_over_the_limit(make_engine: MakeEngine, serve: Any) -> None:
    channel = await serve(make_engine(max_message_bytes=100_000))
    call = channel.stream_stream("/test.Echo/Bidi")()
    await call.write(bytes(100_000))
    assert len(await call.read()) == 100_000
    await call.write(bytes(100_001))
    assert (await status_of(call))[0] is StatusCode.RESOURCE_EXHAUSTED


async def test_big_messages(engine: Engine, serve: Any) -> None:
    channel = await serve(engine)
    body = bytes(range(256)) * (48 * 1024)  # 12 MiB
    call = channel.stream_stream("/test.Echo/Bidi")()
    await call.write(body)
    assert await call.read() == body
    await call.done_writing()
    assert await call.read() is EOF


async def test_an_unknown_stream(engine: Engine, serve: Any) -> None:
    channel = await serve(engine)
    assert (await status_of(channel.stream_stream("/test.Echo/Other")()))[0] is StatusCode.UNIMPLEMENTED
    assert (await status_of(channel.unary_stream("/test.Echo/Other")(b"")))[0] is StatusCode.UNIMPLEMENTED


async def test_the_last_message_comes_behind_all_others(engine: Engine, serve: Any) -> None:
    async def count_down(call: StreamCall) -> None:
        for n in range(int(await call.receive() or b"0"), 0, -1):
            await call.send(b"%d" % n)
        await call.send_last(b"0")

    engine.stream("/test.Count/Down", count_down)
    channel = await serve(engine)
    stream = channel.unary_stream("/test.Count/Down")
    assert await collect(stream(b"0")) == [b"0"]
    assert await collect(stream(b"20")) == [b"%d" % n for n in range(20, -1, -1)]


async def test_a_last_message_comes_before_an_error(engine: Engine, serve: Any) -> None:
    async def refuse(call: StreamCall) -> None:
        await call.send_last(b"why")
        raise AbortCall(StatusCode.FAILED_PRECONDITION, "no")

    engine.stream("/test.Refuse/Stream", refuse)
    channel = await serve(engine)
    call = channel.unary_stream("/test.Refuse/Stream")(b"")
    assert await call.read() == b"why"
    assert await status_of(call) == (StatusCode.FAILED_PRECONDITION, "no")
