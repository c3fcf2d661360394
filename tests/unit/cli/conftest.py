"""The command in front of the real admin operations in front of brokers in memory: no ports, no processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from google.protobuf.message import Message
from typer.testing import CliRunner, Result

from kourou.cli import admin
from kourou.cli.app import app
from kourou.transport import Reply, RpcError
from kourou_admin.brokers import Brokers
from kourou_admin.commands import Commands
from kourou_admin.copies import GroupCopies, TopicCopies
from kourou_admin.dead_letters import DeadLetters
from kourou_admin.draining import Draining
from kourou_admin.groups import Groups
from kourou_admin.messages import Messages
from kourou_admin.progress import Progress
from kourou_admin.rpc import open_door
from kourou_admin.spreading import Spreading
from kourou_admin.topics import Topics
from kourou_service.metrics.calls import CallMeters
from tests.unit.admin.fake_cluster import FakeClock, FakeNetwork


class FakeCall:
    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def reply(self, response: bytes, trailing: object = ()) -> None:
        self.answer.set_result(response)

    def fail(self, code: Any, details: str) -> None:
        self.answer.set_exception(RpcError(code, details))

    def on_cancel(self, callback: object) -> None: ...


class InMemoryAdmin:
    """The admin service without its server: engine, transport and channel in one."""

    def __init__(self, network: FakeNetwork) -> None:
        self.network = network
        self.handlers: dict[str, Any] = {}
        self.meters = CallMeters()
        cluster, clock = network.cluster(), FakeClock()
        topics, groups = TopicCopies(cluster), GroupCopies(cluster)
        open_door(
            self,  # type: ignore[arg-type]
            Topics(cluster, topics, clock),
            Spreading(cluster, topics, groups),
            Groups(groups, clock, cluster),
            Brokers(cluster),
            Draining(cluster, topics),
            Progress(cluster),
            Messages(cluster, clock),
            Commands(cluster, 1.0),
            DeadLetters(cluster),
        )

    def unary(self, path: str, handler: Any) -> None:
        self.handlers[path] = handler

    def stream(self, path: str, handler: Any) -> None:
        self.handlers[path] = handler

    async def ask(self, path: str, request: bytes) -> bytes:
        call = FakeCall()
        self.handlers[path](request, call)
        return await call.answer


class FakeStream:
    """The server's side of a stream; what it sends is gathered."""

    method, peer, cancelled = "", "", False

    def __init__(self, request: bytes) -> None:
        self.metadata: dict[str, str] = {}
        self._request = request
        self.sent: list[bytes] = []

    async def receive(self) -> bytes:
        return self._request

    async def send(self, response: bytes) -> None:
        self.sent.append(response)

    async def send_last(self, response: bytes) -> None:
        self.sent.append(response)


class InMemoryTransport:
    def __init__(self, service: InMemoryAdmin) -> None:
        self._service = service

    def channel(self, address: str) -> InMemoryChannel:
        return InMemoryChannel(self._service)

    def reconnect(self, address: str) -> None: ...

    async def close(self) -> None: ...


class InMemoryChannel:
    def __init__(self, service: InMemoryAdmin) -> None:
        self._service = service

    async def unary(self, method: Any, request: Message, *, timeout_s: float, metadata: object = ()) -> Reply[Any]:
        answer = await self._service.ask(method.path, request.SerializeToString())
        return Reply(method.response.FromString(answer), {})

    async def server_stream(
        self, method: Any, request: Message, *, timeout_s: float, metadata: object = ()
    ) -> AsyncGenerator[Any, None]:
        stream = FakeStream(request.SerializeToString())
        await self._service.handlers[method.path](stream)
        for answer in stream.sent:
            yield method.response.FromString(answer)


class Command:
    def __init__(self, network: FakeNetwork) -> None:
        self.network = network
        self.brokers = network.brokers

    def __call__(self, *args: str, input: str | None = None) -> Result:
        result = CliRunner().invoke(app, list(args), input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def ok(self, *args: str, input: str | None = None) -> str:
        result = self(*args, input=input)
        assert result.exit_code == 0, result.output
        return result.stdout


@pytest.fixture
def kourou(monkeypatch: pytest.MonkeyPatch) -> Command:
    network = FakeNetwork("broker-a", "broker-b")
    # A new one for each command, which has an event loop of its own.
    monkeypatch.setattr(admin, "GrpcTransport", lambda: InMemoryTransport(InMemoryAdmin(network)))
    return Command(network)
