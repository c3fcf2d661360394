"""Unary calls, on both engines."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from kourou_service.engine import AbortCall, Engine, UnaryCall, create_engine
from tests.unit.engine.conftest import MakeEngine, until


async def status_of(call: Any) -> tuple[StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_a_request_comes_back(engine: Engine, serve: Any) -> None:
    channel = await serve(engine)
    assert await channel.unary_unary("/test.Echo/Unary")(b"hello") == b"hello"
    assert await channel.unary_unary("/test.Echo/Unary")(b"") == b""


async def test_many_calls_at_once_over_several_connections(engine: Engine, serve: Any, channels: Any) -> None:
    address = engine.listen("127.0.0.1:0")
    first = await serve(engine)
    calls = [
        channel.unary_unary("/test.Echo/Unary")(b"%d" % n) for channel in (first, channels(address)) for n in range(300)
    ]
    assert await asyncio.gather(*calls) == [b"%d" % n for n in range(300)] * 2


async def test_an_answer_may_come_later(engine: Engine, serve: Any) -> None:
    waiting: list[UnaryCall] = []
    engine.unary("/test.Late/Unary", lambda _request, call: waiting.append(call))
    channel = await serve(engine)
    answers = [asyncio.ensure_future(channel.unary_unary("/test.Late/Unary")(b"")) for _ in range(3)]
    await until(lambda: len(waiting) == 3)
    for n, call in enumerate(reversed(waiting)):
        call.reply(b"%d" % n)
    assert sorted(await asyncio.gather(*answers)) == [b"0", b"1", b"2"]


async def test_metadata_both_ways(engine: Engine, serve: Any) -> None:
    seen: list[UnaryCall] = []

    def handler(request: bytes, call: UnaryCall) -> None:
        seen.append(call)
        assert call.metadata["x-mq-client-id"] == "me"
        assert call.metadata["repeated"] == "second"
        assert call.metadata["x-bin"] == b"\x00\xff"
        assert call.peer.startswith("ipv4:127.0.0.1:")
        assert call.method == "/test.Meta/Unary"
        assert call.listener == "local"
        assert call.deadline_s is None
        assert not call.cancelled
        call.reply(request, [("x-kourou-log-positions", "1.2,1.3"), ("x-bin", b"\x01\x00")])

    engine.unary("/test.Meta/Unary", handler)
    channel = await serve(engine)
    metadata = (("x-mq-client-id", "me"), ("repeated", "first"), ("repeated", "second"), ("x-bin", b"\x00\xff"))
    call = channel.unary_unary("/test.Meta/Unary")(b"", metadata=metadata)
    await call
    assert len(seen) == 1
    trailing = dict(await call.trailing_metadata())
    assert trailing["x-kourou-log-positions"] == "1.2,1.3"
    assert trailing["x-bin"] == b"\x01\x00"


async def test_the_authority_where_the_engine_can_tell(engine: Engine, kind: str) -> None:
    seen: list[str] = []

    def handler(request: bytes, call: UnaryCall) -> None:
        seen.append(call.authority)
        call.reply(request)

    engine.unary("/test.Meta/Authority", handler)
    address = engine.listen("127.0.0.1:0")
    await engine.start()
    options = [("grpc.default_authority", "namesrv-1:8081")]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        await channel.unary_unary("/test.Meta/Authority")(b"")
    assert seen == ["namesrv-1:8081" if kind == "queue" else ""]


async def test_a_call_knows_the_listener_it_came_by(engine: Engine, channels: Any) -> None:
    engine.unary("/test.Meta/Listener", lambda _request, call: call.reply(call.listener.encode()))
    addresses = {name: engine.listen("127.0.0.1:0", name=name) for name in ("local", "internal")}
    await engine.start()
    for name, address in addresses.items():
        assert await channels(address).unary_unary("/test.Meta/Listener")(b"") == name.encode()


@pytest.mark.parametrize("code", [code for code in StatusCode if code is not StatusCode.OK])
async def test_every_error_status(engine: Engine, serve: Any, code: StatusCode) -> None:
    engine.unary("/test.Fail/Unary", lambda _request, call: call.fail(code, "because: ü"))
    channel = await serve(engine)
    assert await status_of(channel.unary_unary("/test.Fail/Unary")(b"")) == (code, "because: ü")


async def test_long_details_are_cut(engine: Engine, serve: Any) -> None:
    engine.unary("/test.Fail/Unary", lambda _request, call: call.fail(StatusCode.ABORTED, "x" * 100_000))
    channel = await serve(engine)
    code, details = await status_of(channel.unary_unary("/test.Fail/Unary")(b""))
    assert code is StatusCode.ABORTED
    assert set(details) == {"x"}
    assert len(details) <= 1024


async def test_a_handler_that_aborts(engine: Engine, serve: Any) -> None:
    def handler(_request: bytes, _call: UnaryCall) -> None:
        raise AbortCall(StatusCode.INVALID_ARGUMENT, "no")

    engine.unary("/test.Abort/Unary", handler)
    channel = await serve(engine)
    assert await status_of(channel.unary_unary("/test.Abort/Unary")(b"")) == (StatusCode.INVALID_ARGUMENT, "no")


async def test_a_handler_that_fails_is_logged_and_tells_nothing(
    engine: Engine, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(_request: bytes, _call: UnaryCall) -> None:
        raise ValueError("secret")

    engine.unary("/test.Bug/Unary", handler)
    channel = await serve(engine)
    with caplog.at_level(logging.ERROR):
        assert await status_of(channel.unary_unary("/test.Bug/Unary")(b"")) == (StatusCode.INTERNAL, "internal error")
    assert "/test.Bug/Unary" in caplog.text
    assert "secret" in caplog.text


@pytest.mark.parametrize(
    "trailing", [[("Upper", "x")], [("grpc-status", "0")], [("key", "line\nbreak")], [("k-bin", "x")]]
)
async def test_illegal_trailing_metadata_is_an_internal_error(engine: Engine, serve: Any, trailing: Any) -> None:
    engine.unary("/test.Bug/Trailing", lambda _request, call: call.reply(b"", trailing))
    channel = await serve(engine)
    assert (await status_of(channel.unary_unary("/test.Bug/Trailing")(b"")))[0] is StatusCode.INTERNAL


async def test_a_second_answer_is_refused(engine: Engine, serve: Any) -> None:
    refused: list[Exception] = []

    def handler(request: bytes, call: UnaryCall) -> None:
        call.reply(request)
        for again in (
            lambda: call.reply(b"again"),
            lambda: call.fail(StatusCode.ABORTED, ""),
            lambda: call.on_cancel(lambda: None),
        ):
            try:
                again()
            except RuntimeError as error:
                refused.append(error)

    engine.unary("/test.Bug/Twice", handler)
    channel = await serve(engine)
    assert await channel.unary_unary("/test.Bug/Twice")(b"once") == b"once"
    assert len(refused) == 3


async def test_an_unknown_method(engine: Engine, serve: Any) -> None:
    channel = await serve(engine)
    assert (await status_of(channel.unary_unary("/test.Echo/Other")(b"")))[0] is StatusCode.UNIMPLEMENTED
    assert (await status_of(channel.unary_unary("/no.Service/Method")(b"")))[0] is StatusCode.UNIMPLEMENTED


async def test_a_path_is_taken_once(engine: Engine) -> None:
    with pytest.raises(ValueError, match="has a handler"):
        engine.unary("/test.Echo/Unary", lambda _request, _call: None)
    with pytest.raises(ValueError, match="has a handler"):
        engine.stream("/test.Echo/Unary", lambda _call: asyncio.sleep(0))


async def test_a_cancel_is_reported_and_the_late_answer_dropped(engine: Engine, serve: Any) -> None:
    seen: list[UnaryCall] = []
    cancelled: list[bool] = []

    def handler(_request: bytes, call: UnaryCall) -> None:
        seen.append(call)
        call.on_cancel(lambda: cancelled.append(call.cancelled))

    engine.unary("/test.Wait/Unary", handler)
    channel = await serve(engine)
    call = channel.unary_unary("/test.Wait/Unary")(b"")
    answer = asyncio.ensure_future(call)
    await until(lambda: seen)
    call.cancel()
    await until(lambda: cancelled)
    assert cancelled == [True]
    seen[0].reply(b"late")
    with pytest.raises(asyncio.CancelledError):
        await answer
    assert await channel.unary_unary("/test.Echo/Unary")(b"on") == b"on"


async def test_a_deadline_cancels(engine: Engine, serve: Any) -> None:
    left: list[float] = []
    cancelled: list[bool] = []

    def handler(_request: bytes, call: UnaryCall) -> None:
        assert call.deadline_s is not None
        left.append(call.deadline_s)
        call.on_cancel(lambda: cancelled.append(True))

    engine.unary("/test.Wait/Unary", handler)
    channel = await serve(engine)
    assert (await status_of(channel.unary_unary("/test.Wait/Unary")(b"", timeout=0.2)))[
        0
    ] is StatusCode.DEADLINE_EXCEEDED
    await until(lambda: cancelled)
    assert 0 < left[0] <= 0.25


async def test_a_call_with_on_cancel_is_answered_as_any_other(engine: Engine, serve: Any) -> None:
    cancelled: list[bool] = []

    def handler(request: bytes, call: UnaryCall) -> None:
        call.on_cancel(lambda: cancelled.append(True))
        if request == b"fail":
            call.fail(StatusCode.NOT_FOUND, "gone")
        else:
            call.reply(request, [("k", "v")])

    engine.unary("/test.Wait/Unary", handler)
    channel = await serve(engine)
    call = channel.unary_unary("/test.Wait/Unary")(b"x", timeout=5)
    assert await call == b"x"
    assert dict(await call.trailing_metadata())["k"] == "v"
    assert await status_of(channel.unary_unary("/test.Wait/Unary")(b"fail")) == (StatusCode.NOT_FOUND, "gone")
    assert await channel.unary_unary("/test.Echo/Unary")(b"on") == b"on"
    assert not cancelled


async def test_cancels_of_calls_that_do_not_listen_for_them(engine: Engine, serve: Any) -> None:
    waiting: list[UnaryCall] = []
    engine.unary("/test.Late/Unary", lambda _request, call: waiting.append(call))
    channel = await serve(engine)
    calls = [channel.unary_unary("/test.Late/Unary")(b"") for _ in range(50)]
    answers = [asyncio.ensure_future(call) for call in calls]
    await until(lambda: len(waiting) == 50)
    for call in calls[::2]:
        call.cancel()
    for call in waiting:
        call.reply(b"done")
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert outcomes[1::2] == [b"done"] * 25


async def test_big_messages(engine: Engine, serve: Any) -> None:
    channel = await serve(engine)
    body = bytes(range(256)) * (60 * 1024)  # 15 MiB
    assert await channel.unary_unary("/test.Echo/Unary")(body) == body


async def test_messages_over_the_limit(make_engine: MakeEngine, serve: Any) -> None:
    engine = make_engine(max_message_bytes=100_000)
    engine.unary("/test.Big/Answer", lambda _request, call: call.reply(bytes(100_001)))
    channel = await serve(engine)
    unary = channel.unary_unary("/test.Echo/Unary")
    assert (await status_of(unary(bytes(100_001))))[0] is StatusCode.RESOURCE_EXHAUSTED
    assert (await status_of(channel.unary_unary("/test.Big/Answer")(b"")))[0] in (
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.INTERNAL,
    )
    assert len(await unary(bytes(100_000))) == 100_000


async def test_metadata_over_the_limit(make_engine: MakeEngine, serve: Any) -> None:
    channel = await serve(make_engine(max_metadata_bytes=4096))
    unary = channel.unary_unary("/test.Echo/Unary")
    code, _ = await status_of(unary(b"", metadata=[("k", "v" * 5000)]))
    assert code is StatusCode.RESOURCE_EXHAUSTED
    assert await unary(b"x", metadata=[("k", "v" * 2000)]) == b"x"


async def test_calls_over_the_limit(make_engine: MakeEngine, serve: Any) -> None:
    engine = make_engine(max_concurrent_calls=4)
    waiting: list[UnaryCall] = []
    engine.unary("/test.Late/Unary", lambda _request, call: waiting.append(call))
    channel = await serve(engine)
    late = channel.unary_unary("/test.Late/Unary")
    answers = [asyncio.ensure_future(late(b"")) for _ in range(4)]
    await until(lambda: len(waiting) == 4)
    assert (await status_of(late(b"")))[0] is StatusCode.RESOURCE_EXHAUSTED
    waiting.pop().reply(b"")
    fifth = asyncio.ensure_future(late(b""))
    await until(lambda: len(waiting) == 4)
    for call in waiting:
        call.reply(b"")
    await asyncio.gather(*answers, fifth)


async def test_what_handlers_schedule_runs_after_the_turn(serve: Any) -> None:
    """The broker seals one frame a turn: several calls of one drain must come before the callback of the first."""
    engine = create_engine("queue")
    order: list[str] = []
    loop = asyncio.get_running_loop()

    def handler(request: bytes, call: UnaryCall) -> None:
        order.append("call")
        loop.call_soon(order.append, "seal")
        call.reply(request)

    engine.unary("/test.Turn/Unary", handler)
    channel = await serve(engine)
    unary = channel.unary_unary("/test.Turn/Unary")
    await asyncio.gather(*(unary(b"") for _ in range(300)))
    await engine.stop(0)
    assert "call,call,call" in ",".join(order)


async def test_a_turn_leaves_the_loop_to_others_in_time(serve: Any) -> None:
    engine = create_engine("queue")
    iterations = 0

    def handler(request: bytes, call: UnaryCall) -> None:
        time.sleep(0.001)
        call.reply(request)

    async def tick() -> None:
        nonlocal iterations
        while True:
            await asyncio.sleep(0)
            iterations += 1

    engine.unary("/test.Turn/Slow", handler)
    channel = await serve(engine)
    unary = channel.unary_unary("/test.Turn/Slow")
    await unary(b"")
    calls = [asyncio.ensure_future(unary(b"")) for _ in range(200)]
    ticking = asyncio.ensure_future(tick())
    await asyncio.gather(*calls)
    ticking.cancel()
    await engine.stop(0)
    assert iterations >= 200 // 3  # 2 ms a turn, a handler may overrun it by its own millisecond
