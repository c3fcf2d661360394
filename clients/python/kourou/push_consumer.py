"""Calls a listener with each message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from typing_extensions import Unpack

from kourou import commands, settings
from kourou.broadcasting import Broadcasting, BroadcastQueues
from kourou.client import Client, ClientOptions
from kourou.consumption import Consumption
from kourou.errors import InvalidArgument
from kourou.filters import Filter
from kourou.listening import BatchListener, Listener, Listening
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2.service_pb2 import TelemetryCommand
from kourou.received import ReceivedMessage
from kourou.settlement import Settler
from kourou.simple_consumer import checked_subscriptions
from kourou.streamed import StreamedQueues

CONCURRENCY = 16
MAX_CACHED_COUNT = 16_384
MAX_CACHED_BYTES = 64 * 1024 * 1024
CLOSE_GRACE_S = 10.0


class Intake(Protocol):
    """Where the messages come from."""

    async def start(self) -> None:
        """Raises what stands in the way now, such as TopicNotFound; later troubles are logged and overcome."""
        ...

    async def stop(self) -> None:
        """No more messages reach the listener."""
        ...

    async def close(self) -> None:
        """When the listener has ended: what it is done with is settled."""
        ...


class AsyncPushConsumer:
    """Calls its listener on one event loop, or in threads. Works between `start` and `close`, or as a context manager.

    The members of a group share its messages, each its own queues. A message that the listener fails on comes again
    after the group's backoff, and goes to the group's dead-letter topic after its last attempt. If the group keeps the
    order, the messages of a message group are heard one after the other, and wait for one that is to come again.
    """

    def __init__(
        self,
        group: str,
        subscriptions: Mapping[str, Filter],
        listener: Listener | None = None,
        namesrv: str | Sequence[str] | None = None,
        *,
        batch_listener: BatchListener | None = None,
        concurrency: int = CONCURRENCY,
        broadcasting: Broadcasting | None = None,
        max_cached_count: int = MAX_CACHED_COUNT,
        max_cached_bytes: int = MAX_CACHED_BYTES,
        close_grace_s: float = CLOSE_GRACE_S,
        **options: Unpack[ClientOptions],
    ) -> None:
        """`subscriptions`: for each topic the tags to receive, as in "paid || shipped", or "*" for all, or `Sql(...)`.
        `listener`: called with each message; succeeds unless it raises or returns False.
        `batch_listener`: in its place, called with lists of messages that came together. It may return those that are
        to come again.
        `namesrv`: "host:port" of one or several NameServers; else from KOUROU_NAMESRV, else the local cluster.
        `concurrency`: how many calls of the listener run at a time.
        `broadcasting`: this member receives every message, and keeps its progress itself.
        `close_grace_s`: how long `close` waits for messages that are with the listener."""
        if concurrency < 1 or max_cached_count < 1 or max_cached_bytes < 1:
            raise InvalidArgument("concurrency and the limits of the cache are at least 1")
        if (listener is None) == (batch_listener is None):
            raise InvalidArgument("a push consumer has a listener or a batch_listener")
        self._group = group
        self._subscriptions = checked_subscriptions(subscriptions)
        self._client_type = v2.PUSH_CONSUMER if broadcasting is None else v2.PULL_CONSUMER
        self._client = Client(namesrv, self._settings, group=group, options=options)
        self._listening = Listening(listener, batch_listener, concurrency, max_cached_count, max_cached_bytes)
        self._client.session.handlers[commands.VERIFY_MESSAGE] = self._verify
        self._broadcasting = broadcasting
        self._close_grace_s = close_grace_s
        self._intake: Intake | None = None

    @property
    def client_id(self) -> str:
        return self._client.wire.client_id

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Raises what stands in the way, such as TopicNotFound or ConnectionFailed; then it can be tried again."""
        if self._intake is not None:
            return
        self._client.check_open()
        self._intake = self._new_intake()
        with self._client.in_use():
            try:
                self._listening.start()
                await self._intake.start()
            except BaseException:
                await self._stop()
                raise

    async def close(self) -> None:
        """Takes no more messages, waits for the listener within the grace, settles what it is done with, and says
        goodbye, so that the rest goes to other members at once."""
        try:
            await self._stop()
        finally:
            await self._client.close()

    async def _stop(self) -> None:
        intake, self._intake = self._intake, None
        if intake is not None:
            await intake.stop()
            await self._listening.close(self._close_grace_s)
            await intake.close()

    def _new_intake(self) -> Intake:
        client, group, subscriptions = self._client, self._group, self._subscriptions
        if self._broadcasting is not None:
            return BroadcastQueues(client, group, subscriptions, self._listening, self._broadcasting)
        settler = Settler(client.wire, group)
        consumption = Consumption(self._listening, settler, lambda: client.session.broker_settings)
        return StreamedQueues(client, group, subscriptions, self._listening, consumption)

    async def _verify(self, command: TelemetryCommand, address: str) -> TelemetryCommand:
        """An operator tries the listener with a message: what it comes to settles nothing."""
        message = ReceivedMessage(command.verify_message_command.message, "", address)
        settled = not await self._listening.settles([message])
        return commands.verified(command, v2.Status(code=v2.OK if settled else v2.FAILED_TO_CONSUME_MESSAGE))

    def _settings(self) -> v2.Settings:
        return settings.subscribing(self._client_type, self._group, self._subscriptions)
