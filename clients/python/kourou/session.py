"""A client's presence at its brokers: one telemetry stream to each of them with the settings, heartbeats, and the
goodbye at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from kourou import commands
from kourou.backoff import Exponential
from kourou.errors import InvalidRequest, KourouError, ServerError, error_of_status
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.settings import BrokerSettings
from kourou.transport import BidiCall, RpcError
from kourou.wire import Wire

_log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL_S = 10.0
_SETTINGS_TIMEOUT_S = 2.0
_RECONNECT = Exponential(initial_s=0.2, max_s=5.0)
_GOODBYE_TIMEOUT_S = 1.0

TelemetryStream = BidiCall[service_pb2.TelemetryCommand, service_pb2.TelemetryCommand]


class Session:
    """`own_settings` is asked whenever they are sent, so it always tells the newest."""

    def __init__(self, wire: Wire, own_settings: Callable[[], v2.Settings], group: str | None) -> None:
        self.broker_settings = BrokerSettings()
        self._wire = wire
        self._own_settings = own_settings
        self._group = v2.Resource(name=group) if group else None
        self.handlers: dict[str, commands.Handler] = {
            commands.PRINT_STACKS: commands.print_stacks,
            commands.VERIFY_MESSAGE: commands.cannot_verify,
            commands.RECONNECT: self._reconnect,
            commands.CHECK_TRANSACTION: commands.cannot_check,
        }
        """Of brokers' commands, by their names in TelemetryCommand."""
        self.on_settings: Callable[[str], None] = lambda _address: None
        """Called with the address of a broker that has answered our settings, as after each of its starts."""
        self._brokers: dict[str, _Presence] = {}
        self._obeying: set[asyncio.Task[None]] = set()
        self._heartbeats: asyncio.Task[None] | None = None
        self._announcement: asyncio.Task[None] | None = None

    def follow(self, addresses: frozenset[str]) -> None:
        """Be present at exactly these brokers."""
        for address in self._brokers.keys() - addresses:
            self._brokers.pop(address).task.cancel()
        for address in addresses - self._brokers.keys():
            presence = self._brokers[address] = _Presence()
            presence.task = asyncio.create_task(self._stay(address, presence), name=f"kourou telemetry {address}")
        if self._heartbeats is None:
            self._heartbeats = asyncio.create_task(self._beat(), name="kourou heartbeats")

    async def settled(self, addresses: Iterable[str]) -> None:
        """Returns when these brokers have answered our settings, if only with a refusal, or after a time-out."""
        waiting = [presence.settled.wait() for address in addresses if (presence := self._brokers.get(address))]
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTINGS_TIMEOUT_S):
                await asyncio.gather(*waiting)

    def check_accepted(self) -> None:
        """Raises InvalidRequest when a broker will never take our settings, as when a filter is not valid."""
        for presence in self._brokers.values():
            if isinstance(presence.refusal, InvalidRequest):
                raise presence.refusal

    def announce_soon(self) -> None:
        """In the background."""
        if self._brokers:
            self._announcement = asyncio.create_task(self.announce())

    async def announce(self) -> None:
        """Tell all brokers that our settings have changed."""
        command = service_pb2.TelemetryCommand(settings=self._own_settings())
        for presence in list(self._brokers.values()):
            if presence.stream is not None:
                try:
                    await presence.write(command)
                except RpcError as error:
                    _log.debug("settings not sent; the next stream begins with them: %s", error)

    async def close(self) -> None:
        """Says goodbye to all brokers, so that what this client holds goes to others at once."""
        brokers, self._brokers = self._brokers, {}
        if self._heartbeats is not None:
            self._heartbeats.cancel()
        for task in self._obeying:
            task.cancel()
        await asyncio.gather(*self._obeying, return_exceptions=True)
        await asyncio.gather(*(self._say_goodbye(address) for address in brokers))
        for presence in brokers.values():
            presence.task.cancel()
        await asyncio.gather(*(presence.task for presence in brokers.values()), return_exceptions=True)

    async def _stay(self, address: str, presence: _Presence) -> None:
        failures = 0
        while True:
            try:
                stream = presence.stream = self._wire.bidi(address, service_rpc.TELEMETRY)
                await presence.write(service_pb2.TelemetryCommand(settings=self._own_settings()))
                while (command := await stream.read()) is not None:
                    self._take(command, address, presence)
                    if presence.refusal is None:
                        failures = 0
            except RpcError as error:
                _log.debug("telemetry of %s broke: %s", address, error)
            finally:
                if presence.stream is not None:
                    presence.stream.cancel()
                    presence.stream = None
            failures += 1
            await asyncio.sleep(_RECONNECT.jittered_s(failures))

    def _take(self, command: service_pb2.TelemetryCommand, address: str, presence: _Presence) -> None:
        handler = self.handlers.get(command.WhichOneof("command") or "")
        if handler is not None:
            # Aside, as it may take its time: settings go on being read.
            task = asyncio.create_task(self._obey(handler, command, address, presence))
            self._obeying.add(task)
            task.add_done_callback(self._obeying.discard)
            return
        presence.settled.set()
        if command.HasField("settings"):
            presence.refusal = None
            self.broker_settings = self.broker_settings.applied(command.settings)
            self.on_settings(address)
        elif command.HasField("status") and command.status.code != v2.OK:
            if presence.refusal is None or presence.refusal.code != command.status.code:
                _log.warning("a broker refused our settings: %s", command.status.message)
            presence.refusal = error_of_status(command.status)

    async def _obey(
        self, handler: commands.Handler, command: service_pb2.TelemetryCommand, address: str, presence: _Presence
    ) -> None:
        try:
            answer = await handler(command, address)
            if answer is not None:
                await presence.write(answer)
        except RpcError as error:
            _log.debug("the answer to a command of %s was not sent: %s", address, error)
        except Exception:
            _log.exception("a command of %s was not carried out", address)

    async def _reconnect(self, command: service_pb2.TelemetryCommand, address: str) -> None:
        self._wire.reconnect(address)
        presence = self._brokers.get(address)
        if presence is not None and presence.stream is not None:
            presence.stream.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.gather(*(self._beat_once(address) for address in list(self._brokers)))
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    async def _beat_once(self, address: str) -> None:
        request = service_pb2.HeartbeatRequest(group=self._group, client_type=self._own_settings().client_type)
        try:
            await self._wire.call(address, service_rpc.HEARTBEAT, request)
        except KourouError as error:
            _log.debug("heartbeat to %s failed: %s", address, error)

    async def _say_goodbye(self, address: str) -> None:
        request = service_pb2.NotifyClientTerminationRequest(group=self._group)
        try:
            await self._wire.call(address, service_rpc.NOTIFY_CLIENT_TERMINATION, request, _GOODBYE_TIMEOUT_S)
        except KourouError as error:
            _log.debug("goodbye to %s failed: %s", address, error)


class _Presence:
    """At one broker."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None]
        self.stream: TelemetryStream | None = None
        self.settled = asyncio.Event()
        self.refusal: ServerError | None = None
        self._writing = asyncio.Lock()

    async def write(self, command: service_pb2.TelemetryCommand) -> None:
        """Unless the stream is broken now: the next one begins with the settings. Raises RpcError."""
        async with self._writing:  # a stream takes one message at a time
            if self.stream is not None:
                await self.stream.write(command)
