"""Both engines, each test on both; echo methods that most tests use; clients of grpc.aio in the same loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import grpc
import pytest

from kourou_service.engine import Engine, EngineOptions, StreamCall, UnaryCall, create_engine

grpc_aio: Any = grpc.aio
EOF = grpc_aio.EOF

Kind = Literal["queue", "aio"]
MakeEngine = Callable[..., Engine]
StartEngine = Callable[..., Awaitable[str]]


@pytest.fixture(params=["queue", "aio"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
async def make_engine(kind: Kind) -> AsyncIterator[MakeEngine]:
    """Engines of the kind under test with echo methods, stopped at the end of the test."""
    engines: list[Engine] = []

    def make(**options: Any) -> Engine:
        engine = create_engine(kind, EngineOptions(**options))
        engine.unary("/test.Echo/Unary", echo)
        engine.stream("/test.Echo/Bidi", echo_stream)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        await engine.stop(0)
    gc.collect()


@pytest.fixture
def engine(make_engine: MakeEngine) -> Engine:
    return make_engine()


@pytest.fixture
async def channels() -> AsyncIterator[Callable[[str], Any]]:
    opened: list[Any] = []

    def connect(address: str) -> Any:
        channel = grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
        opened.append(channel)
        return channel

    yield connect
    for channel in opened:
        await channel.close()


@pytest.fixture
def serve(channels: Callable[[str], Any]) -> Callable[[Engine], Awaitable[Any]]:
    """Starts an engine on a free port -> a channel to it."""

    async def start(engine: Engine) -> Any:
        address = engine.listen("127.0.0.1:0", name="local")
        await engine.start()
        return channels(address)

    return start


def echo(request: bytes, call: UnaryCall) -> None:
    call.reply(request)


async def echo_stream(call: StreamCall) -> None:
    while (message := await call.receive()) is not None:
        await call.send(message)


async def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Waits until the condition holds; TimeoutError if it never does."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
