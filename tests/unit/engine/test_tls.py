"""TLS on both engines: calls of every shape, who is turned away, and certificates that change meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from kourou_service.engine import Engine, StreamCall, UnaryCall
from kourou_service.tls.self_made import Authority
from tests.certificates import ca_of, issue, leaf_of, shown_at
from tests.unit.engine.conftest import EOF, MakeEngine, grpc_aio, until

AUTHORITY = Authority.make()
TIMEOUT_S = 10
# grpcio has no types.
channel_credentials: Callable[..., grpc.ChannelCredentials] = grpc.ssl_channel_credentials
server_credentials: Callable[..., grpc.ServerCredentials] = grpc.ssl_server_credentials
dynamic_credentials: Callable[..., grpc.ServerCredentials] = grpc.dynamic_ssl_server_credentials
configuration: Callable[..., Any] = grpc.ssl_server_certificate_configuration

Connect = Callable[..., Any]


def own_credentials(client_ca: bytes | None = None) -> grpc.ServerCredentials:
    identity = issue(AUTHORITY)
    return server_credentials([(identity.key, identity.certificate)], client_ca, client_ca is not None)


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """A channel over TLS, to a server whose certificate our authority signed."""
    opened: list[Any] = []

    def secure(address: str, credentials: grpc.ChannelCredentials | None = None) -> Any:
        options = [("grpc.max_receive_message_length", -1)]
        channel = grpc_aio.secure_channel(address, credentials or channel_credentials(ca_of(AUTHORITY)), options)
        opened.append(channel)
        return channel

    yield secure
    for channel in opened:
        await channel.close()


@pytest.fixture
async def address(engine: Engine) -> str:
    """Of an engine that listens with TLS as "safe"."""
    bound = engine.listen("127.0.0.1:0", own_credentials(), name="safe")
    await engine.start()
    return bound


async def test_unary_calls_of_any_size(address: str, connect: Connect) -> None:
    unary = connect(address).unary_unary("/test.Echo/Unary")
    for size in (0, 1, 100_000, 12 << 20):
        request = bytes(range(256)) * (size // 256 + 1)
        assert await unary(request, timeout=TIMEOUT_S) == request
    replies = await asyncio.gather(*(unary(b"%d" % number, timeout=TIMEOUT_S) for number in range(200)))
    assert replies == [b"%d" % number for number in range(200)]


async def test_streams(address: str, connect: Connect) -> None:
    stream = connect(address).stream_stream("/test.Echo/Bidi")()
    for number in range(100):
        await stream.write(b"%d" % number)
        assert await stream.read() == b"%d" % number
    await stream.done_writing()
    assert await stream.read() is EOF


async def test_a_call_says_by_which_listener_it_came(make_engine: MakeEngine, connect: Connect) -> None:
    engine = make_engine()
    seen: list[tuple[str, str]] = []

    def note(request: bytes, call: UnaryCall) -> None:
        seen.append((call.listener, call.authority))
        call.reply(b"")

    engine.unary("/test.Note/Unary", note)
    plain = engine.listen("127.0.0.1:0", name="plain")
    safe = engine.listen("127.0.0.1:0", own_credentials(), name="safe")
    await engine.start()
    await connect(safe).unary_unary("/test.Note/Unary")(b"", timeout=TIMEOUT_S)
    async with grpc_aio.insecure_channel(plain) as channel:
        await channel.unary_unary("/test.Note/Unary")(b"", timeout=TIMEOUT_S)
    assert [listener for listener, _ in seen] == ["safe", "plain"]
    if engine.kind == "queue":
        assert [authority for _, authority in seen] == [safe, plain]


async def test_a_client_that_goes_away_cancels_its_calls(make_engine: MakeEngine, connect: Connect) -> None:
    engine = make_engine()
    waiting: list[object] = []
    cancelled: list[str] = []

    def wait(request: bytes, call: UnaryCall) -> None:
        waiting.append(call)
        call.on_cancel(lambda: cancelled.append("unary"))

    async def wait_in_stream(call: StreamCall) -> None:
        waiting.append(call)
        await call.receive()
        try:
            await call.receive()
        except asyncio.CancelledError:
            cancelled.append("stream")
            raise

    engine.unary("/test.Wait/Unary", wait)
    engine.stream("/test.Wait/Stream", wait_in_stream)
    address = engine.listen("127.0.0.1:0", own_credentials())
    await engine.start()
    channel = connect(address)
    call = channel.unary_unary("/test.Wait/Unary")(b"")
    stream = channel.stream_stream("/test.Wait/Stream")()
    await stream.write(b"")
    await until(lambda: len(waiting) == 2)
    call.cancel()
    stream.cancel()
    await until(lambda: sorted(cancelled) == ["stream", "unary"])
    assert await connect(address).unary_unary("/test.Echo/Unary")(b"x", timeout=TIMEOUT_S) == b"x"


async def test_who_speaks_the_other_way_fails_clearly_and_harms_nobody(engine: Engine, connect: Connect) -> None:
    plain = engine.listen("127.0.0.1:0", name="plain")
    safe = engine.listen("127.0.0.1:0", own_credentials(), name="safe")
    await engine.start()
    async with grpc_aio.insecure_channel(safe) as wrong:
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await wrong.unary_unary("/test.Echo/Unary")(b"x", timeout=TIMEOUT_S)
        assert told.value.code() == grpc.StatusCode.UNAVAILABLE
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await connect(plain).unary_unary("/test.Echo/Unary")(b"x", timeout=TIMEOUT_S)
    assert told.value.code() == grpc.StatusCode.UNAVAILABLE
    reader, writer = await asyncio.open_connection(*safe.split(":"))
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await asyncio.wait_for(reader.read(), TIMEOUT_S)
    writer.close()
    assert await connect(safe).unary_unary("/test.Echo/Unary")(b"x", timeout=TIMEOUT_S) == b"x"
    async with grpc_aio.insecure_channel(plain) as right:
        assert await right.unary_unary("/test.Echo/Unary")(b"x", timeout=TIMEOUT_S) == b"x"


async def test_a_client_does_not_take_a_certificate_of_somebody_else(address: str, connect: Connect) -> None:
    stranger = connect(address, channel_credentials(ca_of(Authority.make())))
    with pytest.raises(grpc.aio.AioRpcError, match="CERTIFICATE_VERIFY_FAILED"):
        await stranger.unary_unary("/test.Echo/Unary")(b"x", timeout=TIMEOUT_S)


async def test_clients_may_have_to_show_a_certificate(engine: Engine, connect: Connect) -> None:
    clients = Authority.make()
    address = engine.listen("127.0.0.1:0", own_credentials(ca_of(clients)))
    await engine.start()
    known, unknown = issue(clients, "a-client"), issue(Authority.make(), "a-client")

    def credentials(*pair: bytes) -> grpc.ChannelCredentials:
        return channel_credentials(ca_of(AUTHORITY), *pair)

    good = connect(address, credentials(known.key, known.certificate))
    assert await good.unary_unary("/test.Echo/Unary")(b"x", timeout=TIMEOUT_S) == b"x"
    for pair in ((), (unknown.key, unknown.certificate)):
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await connect(address, credentials(*pair)).unary_unary("/test.Echo/Unary")(b"x", timeout=TIMEOUT_S)
        assert told.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_new_connections_get_the_newest_certificate_and_old_ones_go_on(engine: Engine, connect: Connect) -> None:
    identities = [issue(AUTHORITY) for _ in range(4)]
    forms = [configuration([(each.key, each.certificate)]) for each in identities]
    newest = 0
    address = engine.listen("127.0.0.1:0", dynamic_credentials(forms[0], lambda: forms[newest], False))
    await engine.start()
    old = connect(address)
    stream = old.stream_stream("/test.Echo/Bidi")()
    calls = 0

    async def keep_calling() -> None:
        nonlocal calls
        while True:
            assert await old.unary_unary("/test.Echo/Unary")(b"x", timeout=TIMEOUT_S) == b"x"
            calls += 1

    traffic = asyncio.create_task(keep_calling())
    for newest in range(len(forms)):
        before = calls
        assert await asyncio.to_thread(shown_at, address) == leaf_of(identities[newest])
        await until(lambda before=before: calls > before or traffic.done())
        await stream.write(b"x")
        assert await stream.read() == b"x"
    assert not traffic.done()
    traffic.cancel()
    stream.cancel()


async def test_a_fetcher_that_fails_leaves_the_certificate_as_it_was(engine: Engine, connect: Connect) -> None:
    identity = issue(AUTHORITY)
    first = configuration([(identity.key, identity.certificate)])
    bad = configuration([(b"no key", b"no certificate")])
    answers: list[Any] = [None, bad, None]
    address = engine.listen(
        "127.0.0.1:0", dynamic_credentials(first, lambda: answers.pop(0) if answers else None, False)
    )
    await engine.start()
    for _ in range(5):
        assert await asyncio.to_thread(shown_at, address) == leaf_of(identity)
    assert not answers
