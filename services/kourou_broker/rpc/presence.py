"""Telemetry, Heartbeat and NotifyClientTermination: clients say that they are there, what they are, that they go."""

import asyncio

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou_broker.operations import told_settings
from kourou_broker.operations.clients import MAX_SUBSCRIPTIONS, Client, Clients
from kourou_broker.operations.commands import Commands
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.filters import compile_filter
from kourou_broker.operations.lite_groups import check_member
from kourou_broker.rpc.sending import PRODUCER_GROUP_HEADER
from kourou_broker.state.definitions import Group, name_of
from kourou_service.door import OK, client_id, parse, serve_unary, status
from kourou_service.engine import AbortCall, Call, Engine, StatusCode, StreamCall
from kourou_service.lite_rules import LITE_CONSUMERS
from kourou_service.refusal import Refused

_CONSUMERS = frozenset(
    (
        definition_pb2.PUSH_CONSUMER,
        definition_pb2.SIMPLE_CONSUMER,
        definition_pb2.PULL_CONSUMER,
        *LITE_CONSUMERS,
    )
)
_MAX_UNSENT = 1024
_MAX_UNSENT_BYTES = 16 * 1024 * 1024
_KNOWN = _CONSUMERS | {definition_pb2.PRODUCER}


class _Speaking:
    """What the broker says on a telemetry stream: answers and commands, one after the other."""

    def __init__(self, call: StreamCall) -> None:
        self._call = call
        self._commands: asyncio.Queue[bytes] = asyncio.Queue()
        self._unsent_bytes = 0
        self._writer = asyncio.ensure_future(self._write())

    def send(self, command: service_pb2.TelemetryCommand) -> bool:
        if self._commands.qsize() >= _MAX_UNSENT or self._unsent_bytes > _MAX_UNSENT_BYTES:
            return False  # a client that does not read must not fill the memory
        data = command.SerializeToString()
        self._unsent_bytes += len(data)
        self._commands.put_nowait(data)
        return True

    async def flush(self) -> None:
        await self._commands.join()

    def close(self) -> None:
        self._writer.cancel()

    async def _write(self) -> None:
        while True:
            data = await self._commands.get()
            await self._call.send(data)
            self._unsent_bytes -= len(data)
            self._commands.task_done()


class PresenceDoor:
    def __init__(self, definitions: Definitions, clients: Clients, commands: Commands) -> None:
        self._definitions = definitions
        self._clients = clients
        self._commands = commands
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Ends all telemetry streams: clients come back to the broker when it is up again."""
        self._closing.set()

    def open(self, engine: Engine) -> None:
        engine.stream(service_rpc.TELEMETRY.path, self._telemetry)
        serve_unary(engine, service_rpc.HEARTBEAT, self._heartbeat)
        serve_unary(engine, service_rpc.NOTIFY_CLIENT_TERMINATION, self._terminate)

    async def _telemetry(self, call: StreamCall) -> None:
        """The stream stays open as long as the client lives; its end is how a silent death is noticed."""
        try:
            client = self._client(call)
        except Refused as problem:
            await _send(call, service_pb2.TelemetryCommand(status=status(problem.code, problem.message)))
            return
        stream = _Speaking(call)
        self._clients.stream_opened(client, stream)
        try:
            while (data := await self._next(call)) is not None:
                command = parse(service_pb2.TelemetryCommand, data)
                if command.HasField("settings"):
                    await self._take_settings(client, command.settings, stream)
                else:
                    self._commands.answered(client, command)
        finally:
            self._clients.stream_closed(client, stream)
            stream.close()

    async def _next(self, call: StreamCall) -> bytes | None:
        receive = asyncio.ensure_future(call.receive())
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((receive, closing), return_when=asyncio.FIRST_COMPLETED)
            if receive.done():
                return receive.result()
            raise AbortCall(StatusCode.UNAVAILABLE, "the broker is stopping")
        finally:
            receive.cancel()
            closing.cancel()

    async def _take_settings(self, client: Client, settings: definition_pb2.Settings, stream: "_Speaking") -> None:
        try:
            answer = await self._settings(client, settings)
        except Refused as problem:
            # Official clients do not look at a status alone: they would wait for settings, while the end of the stream
            # makes them fail to start with this text.
            stream.send(service_pb2.TelemetryCommand(status=status(problem.code, problem.message)))
            await stream.flush()
            raise AbortCall(StatusCode.INVALID_ARGUMENT, problem.message) from None
        stream.send(answer)

    async def _settings(self, client: Client, settings: definition_pb2.Settings) -> service_pb2.TelemetryCommand:
        """The answer to settings that are taken. Raises Refused."""
        group = None
        _check_type(settings.client_type)
        if settings.HasField("subscription"):
            group = self._group_of(settings.client_type, settings.subscription)
            await _check_filters(settings.subscription)
        self._clients.configure(client, settings)
        return told_settings.answer(settings, group)

    def _group_of(self, client_type: int, subscription: definition_pb2.Subscription) -> Group:
        """The group of a consumer of that type. Raises Refused if it cannot be a member."""
        topics = [entry.topic for entry in subscription.subscriptions[:MAX_SUBSCRIPTIONS]]
        if client_type in LITE_CONSUMERS and len(topics) == 1:
            group = self._definitions.lite_group(subscription.group, topics[0])
        else:
            group = self._definitions.group(subscription.group)
        check_member(group, client_type, map(name_of, topics))
        return group

    async def _heartbeat(self, request: service_pb2.HeartbeatRequest, call: Call) -> service_pb2.HeartbeatResponse:
        client = self._client(call)
        _check_type(request.client_type)
        if request.client_type in _CONSUMERS and request.HasField("group"):
            # Which topic a lite group is for this does not tell: so it makes none.
            lite = request.client_type in LITE_CONSUMERS
            find_group = self._definitions.existing_group if lite else self._definitions.group
            check_member(find_group(request.group), request.client_type)
            self._clients.join(client, request.client_type, name_of(request.group))
        elif client.type == definition_pb2.CLIENT_TYPE_UNSPECIFIED:
            client.type = request.client_type
        return service_pb2.HeartbeatResponse(status=OK)

    async def _terminate(
        self, request: service_pb2.NotifyClientTerminationRequest, call: Call
    ) -> service_pb2.NotifyClientTerminationResponse:
        self._clients.leave(client_id(call))
        return service_pb2.NotifyClientTerminationResponse(status=OK)

    def _client(self, call: Call) -> Client:
        return self._clients.touch(client_id(call), call, str(call.metadata.get(PRODUCER_GROUP_HEADER, "")))


def _check_type(type_: int) -> None:
    if type_ not in _KNOWN:
        raise Refused(definition_pb2.UNRECOGNIZED_CLIENT_TYPE, f"unknown client type {type_}")


async def _check_filters(subscription: definition_pb2.Subscription) -> None:
    for entry in subscription.subscriptions[:MAX_SUBSCRIPTIONS]:
        compile_filter(entry.expression)
        if entry.expression.type == definition_pb2.SQL:
            await asyncio.sleep(0)  # a long expression takes some milliseconds


async def _send(call: StreamCall, command: service_pb2.TelemetryCommand) -> None:
    await call.send(command.SerializeToString())
