"""Listening, stopping, broken peers and leaks, on both engines."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import shutil
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from kourou_service.engine import Engine, StreamCall, UnaryCall
from tests.unit.engine.conftest import EOF, MakeEngine, until


def host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


async def test_a_port_taken_by_another_engine(engine: Engine, make_engine: MakeEngine) -> None:
    address = engine.listen("127.0.0.1:0")
    assert host_and_port(address)[1] > 0
    with pytest.raises(OSError, match=address):
        make_engine().listen(address)


@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0"])
async def test_a_port_taken_by_a_plain_socket(engine: Engine, bind: str) -> None:
    with socket.create_server((bind, 0)) as taken, pytest.raises(OSError, match="cannot listen on"):
        engine.listen(f"127.0.0.1:{taken.getsockname()[1]}")


@pytest.mark.parametrize("address", ["", "127.0.0.1", "127.0.0.1:port", "127.0.0.1:70000", "192.0.2.1:0", "no such:0"])
async def test_addresses_that_cannot_be_bound(engine: Engine, address: str) -> None:
    with pytest.raises(OSError, match="cannot listen on"):
        engine.listen(address)


async def test_ipv6(engine: Engine, channels: Any) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    address = engine.listen("[::1]:0")
    await engine.start()
    assert await channels(address).unary_unary("/test.Echo/Unary")(b"six") == b"six"


async def test_stop_without_start(engine: Engine) -> None:
    engine.listen("127.0.0.1:0")
    await engine.stop(1)
    await engine.stop(1)


async def test_nothing_is_served_after_the_stop(engine: Engine, serve: Any) -> None:
    channel = await serve(engine)
    assert await channel.unary_unary("/test.Echo/Unary")(b"x") == b"x"
    await engine.stop(1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/test.Echo/Unary")(b"x", timeout=5)
    assert caught.value.code() is StatusCode.UNAVAILABLE


async def test_restart_on_the_same_port(make_engine: MakeEngine, channels: Any) -> None:
    address = "127.0.0.1:0"
    for n in range(3):
        engine = make_engine()
        address = engine.listen(address)
        await engine.start()
        channel = channels(address)
        assert await channel.unary_unary("/test.Echo/Unary")(b"%d" % n, wait_for_ready=True) == b"%d" % n
        await engine.stop(0)
        await channel.close()


async def test_stop_waits_for_the_running_calls(engine: Engine, serve: Any) -> None:
    waiting: list[UnaryCall] = []
    go = asyncio.Event()

    async def stream(call: StreamCall) -> None:
        await call.send(b"first")
        await go.wait()
        await call.send(b"last")

    engine.unary("/test.Late/Unary", lambda _request, call: waiting.append(call))
    engine.stream("/test.Late/Stream", stream)
    channel = await serve(engine)
    unary = asyncio.ensure_future(channel.unary_unary("/test.Late/Unary")(b""))
    call = channel.unary_stream("/test.Late/Stream")(b"")
    assert await call.read() == b"first"
    await until(lambda: waiting)
    stop = asyncio.ensure_future(engine.stop(20))
    await asyncio.sleep(0.1)
    assert not stop.done()
    waiting[0].reply(b"done")
    assert await unary == b"done"
    go.set()
    assert await call.read() == b"last"
    assert await call.read() is EOF
    async with asyncio.timeout(5):
        await stop


async def test_stop_cancels_what_outlasts_the_grace(engine: Engine, serve: Any) -> None:
    waiting: list[UnaryCall] = []
    cancelled: list[str] = []

    def listening(_request: bytes, call: UnaryCall) -> None:
        waiting.append(call)
        call.on_cancel(lambda: cancelled.append("unary"))

    async def stream(call: StreamCall) -> None:
        await call.send(b"x")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append("stream")

    engine.unary("/test.Late/Deaf", lambda _request, call: waiting.append(call))
    engine.unary("/test.Late/Listening", listening)
    engine.stream("/test.Late/Stream", stream)
    channel = await serve(engine)
    answers = [asyncio.ensure_future(channel.unary_unary(f"/test.Late/{m}")(b"")) for m in ("Deaf", "Listening")]
    call = channel.unary_stream("/test.Late/Stream")(b"")
    await call.read()
    await until(lambda: len(waiting) == 2)
    async with asyncio.timeout(5):
        await engine.stop(0.1)
    assert sorted(cancelled) == ["stream", "unary"]
    for late in waiting:
        late.reply(b"too late")
    for answer in answers:
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await answer
    assert await call.code() is not StatusCode.OK


async def test_no_new_calls_while_stopping(engine: Engine, serve: Any, channels: Any) -> None:
    waiting: list[UnaryCall] = []
    engine.unary("/test.Late/Unary", lambda _request, call: waiting.append(call))
    channel = await serve(engine)
    first = asyncio.ensure_future(channel.unary_unary("/test.Late/Unary")(b""))
    await until(lambda: waiting)
    stop = asyncio.ensure_future(engine.stop(20))
    await asyncio.sleep(0.05)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/test.Echo/Unary")(b"", timeout=2)
    assert caught.value.code() in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)
    waiting[0].reply(b"")
    await first
    await stop


async def test_garbage_on_the_port_does_no_harm(engine: Engine, channels: Any) -> None:
    address = engine.listen("127.0.0.1:0")
    await engine.start()
    channel = channels(address)
    unary = channel.unary_unary("/test.Echo/Unary")
    noise = random.Random(1)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    garbage = [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", preface, preface + bytes(9), preface[:10]]
    garbage += [noise.randbytes(noise.randrange(1, 5000)) for _ in range(10)]
    garbage += [preface + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) + noise.randbytes(2000) for _ in range(10)]

    def throw(data: bytes) -> None:
        connection = socket.create_connection(host_and_port(address), timeout=5)
        with connection, contextlib.suppress(OSError):
            connection.sendall(data)

    for data in garbage:
        await asyncio.to_thread(throw, data)
        assert await unary(b"still here") == b"still here"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[bytes, bytes]:
    """A self-signed certificate for localhost -> key and certificate as PEM."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        (
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(cert)),
        ),
        check=True,
        capture_output=True,
    )
    return key.read_bytes(), cert.read_bytes()


async def test_tls(engine: Engine, channels: Any, certificate: tuple[bytes, bytes]) -> None:
    secure = engine.listen("127.0.0.1:0", grpc.ssl_server_credentials([certificate]), name="secure")
    plain = engine.listen("127.0.0.1:0")
    await engine.start()
    credentials = grpc.ssl_channel_credentials(certificate[1])
    options = [("grpc.ssl_target_name_override", "localhost")]
    async with grpc.aio.secure_channel(secure, credentials, options=options) as channel:
        assert await channel.unary_unary("/test.Echo/Unary")(b"x" * 100_000) == b"x" * 100_000
        call = channel.stream_stream("/test.Echo/Bidi")()
        await call.write(b"y")
        assert await call.read() == b"y"
        await call.done_writing()
        assert await call.read() is EOF
    with pytest.raises(grpc.aio.AioRpcError):
        await channels(secure).unary_unary("/test.Echo/Unary")(b"x", timeout=5)
    assert await channels(plain).unary_unary("/test.Echo/Unary")(b"x") == b"x"


SYNC_CLIENT = """
import sys, grpc
channel = grpc.insecure_channel(sys.argv[1])
unary = channel.unary_unary("/test.Echo/Unary")
futures = [unary.future(b"%d" % n) for n in range(200)]
assert [future.result() for future in futures] == [b"%d" % n for n in range(200)]
bidi = channel.stream_stream("/test.Echo/Bidi")
assert list(bidi(iter([b"a", b"b"]))) == [b"a", b"b"]
calls = [channel.stream_stream("/test.Wait/Bidi")(iter([b""])) for _ in range(3)]
for call in calls:
    assert next(call) == b"here"
if sys.argv[2] == "die":
    import os
    os._exit(0)
calls[0].cancel()
try:
    unary(b"x", timeout=0)
except grpc.RpcError as error:
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
assert unary(b"end") == b"end"
channel.close()
"""


@pytest.mark.parametrize("how", ["close", "die"])
async def test_a_sync_client_in_another_process(engine: Engine, how: str) -> None:
    open_streams = 0

    async def wait(call: StreamCall) -> None:
        nonlocal open_streams
        open_streams += 1
        try:
            await call.send(b"here")
            await asyncio.Event().wait()
        finally:
            open_streams -= 1

    engine.stream("/test.Wait/Bidi", wait)
    address = engine.listen("127.0.0.1:0")
    await engine.start()
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", SYNC_CLIENT, address, how)
    assert await client.wait() == 0
    await until(lambda: open_streams == 0)


async def test_calls_leave_nothing_behind(engine: Engine, kind: str, serve: Any) -> None:
    """20,000 calls on the queue engine; every tenth is a stream, every hundredth is cancelled."""
    calls, at_a_time = (4_000, 100) if kind == "queue" else (400, 100)
    channel = await serve(engine)
    unary, bidi = channel.unary_unary("/test.Echo/Unary"), channel.stream_stream("/test.Echo/Bidi")

    async def stream() -> None:
        call = bidi()
        await call.write(bytes(1000))
        await call.read()
        await call.done_writing()
        await call.read()

    async def cancelled() -> None:
        call = unary(bytes(1000))
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call

    async def some() -> None:
        kinds = [cancelled() if n == 0 else stream() if n % 10 == 0 else unary(bytes(1000)) for n in range(at_a_time)]
        await asyncio.gather(*kinds)

    async def a_round() -> int:
        for _ in range(calls // at_a_time):
            await some()
        gc.collect()
        return resident_bytes()

    first = await a_round()
    objects = len(gc.get_objects())
    resident = [first, *[await a_round() for _ in range(4)]]
    # A leak grows in every round (each call leaking its request alone: 4 MB); the allocator takes more in some only.
    assert min(after - before for before, after in pairwise(resident)) < 1_000_000
    assert len(gc.get_objects()) - objects < 1_000


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
