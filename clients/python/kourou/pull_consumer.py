"""Reads queues by offset when asked: the caller says where, and keeps count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

from typing_extensions import Unpack

from kourou import portal, pulling, settings
from kourou.client import Client, ClientOptions
from kourou.errors import InvalidArgument, KourouError, NotFound
from kourou.filters import Filter
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.pulling import Pull
from kourou.received import ReceivedMessage
from kourou.route import Queue
from kourou.simple_consumer import MAX_MESSAGES, WAIT_S, checked_subscriptions

Where = Literal["first", "end"] | datetime
"""The oldest message that is kept, what is sent from now on, or what was stored at that time or later."""


class AsyncPullConsumer:
    """Pulls on one event loop. What it reads is not leased: others get it too, and nothing is acknowledged.

    A queue has a position, from which the next `pull` reads. At first that is what the group has committed, else the
    oldest message. Different queues may be pulled at the same time, one queue by one task.
    """

    def __init__(
        self,
        group: str,
        subscriptions: Mapping[str, Filter],
        namesrv: str | Sequence[str] | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        """`subscriptions`: for each topic the tags to read, as in "paid || shipped", or "*" for all, or `Sql(...)`.
        `namesrv`: "host:port" of one or several NameServers; else from KOUROU_NAMESRV, else the local cluster."""
        self._group = group
        self._subscriptions = checked_subscriptions(subscriptions)
        self._client = Client(namesrv, self._settings, group=group, options=options)
        self._positions: dict[Queue, int] = {}

    @property
    def client_id(self) -> str:
        return self._client.wire.client_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def queues(self, topic: str) -> list[Queue]:
        """Those that can be read now, on all brokers. Raises TopicNotFound."""
        self._check_subscribed(topic)
        with self._client.in_use():
            return list((await self._client.routes.pull(topic)).readable)

    async def pull(
        self, queue: Queue, max_messages: int = MAX_MESSAGES, *, wait_s: float = WAIT_S
    ) -> list[ReceivedMessage]:
        """The next messages of the queue, whose position moves behind them; none when nothing came within `wait_s`.

        Raises InvalidRequest when the queue does not hold the position, as when retention has passed it."""
        self._check_subscribed(queue.topic)
        with self._client.in_use():
            try:
                offset = await self._position(queue)
                wanted = self._subscriptions[queue.topic]
                asked = Pull(self._group, queue, wanted, offset, max_messages, wait_s)
                messages, next_offset = await pulling.pull(self._client.wire, asked)
            except KourouError:
                self._client.routes.pull_soon(queue.topic)
                raise
        if self._positions[queue] == offset:  # else it was sought meanwhile
            self._positions[queue] = next_offset
        return messages

    def position(self, queue: Queue) -> int | None:
        """The offset at which the next `pull` begins; None before the first one."""
        return self._positions.get(queue)

    def seek(self, queue: Queue, offset: int) -> None:
        """The next `pull` begins there."""
        if offset < 0:
            raise InvalidArgument(f"an offset is 0 or more, not {offset}")
        self._positions[queue] = offset

    async def offset(self, queue: Queue, where: Where) -> int:
        """Of the queue; a time has to have a time zone."""
        if isinstance(where, datetime) and where.tzinfo is None:
            raise InvalidArgument("the time has no time zone: use datetime.now(UTC) or the like")
        with self._client.in_use():
            if isinstance(where, datetime):
                return await pulling.offset_at(self._client.wire, queue, where)
            if where == "end":
                return await pulling.end_offset(self._client.wire, queue)
            return await pulling.first_offset(self._client.wire, queue)

    async def commit(self, queue: Queue) -> None:
        """The group has settled all before the queue's position: another member, or a later one, goes on there.

        Nothing happens before the first `pull` or `seek`."""
        position = self._positions.get(queue)
        if position is None:
            return
        request = service_pb2.UpdateOffsetRequest(
            group=v2.Resource(name=self._group), message_queue=queue.wire, offset=position
        )
        with self._client.in_use():
            await self._client.wire.call(queue.address, service_rpc.UPDATE_OFFSET, request)

    async def committed(self, queue: Queue) -> int | None:
        """What the group has committed; None if nothing."""
        request = service_pb2.GetOffsetRequest(group=v2.Resource(name=self._group), message_queue=queue.wire)
        with self._client.in_use():
            try:
                return (await self._client.wire.call(queue.address, service_rpc.GET_OFFSET, request)).message.offset
            except NotFound as error:
                if error.code != v2.OFFSET_NOT_FOUND:
                    raise
                return None

    async def close(self) -> None:
        """What was not committed is read again."""
        await self._client.close()

    async def _position(self, queue: Queue) -> int:
        if queue not in self._positions:
            first, committed = await self.offset(queue, "first"), await self.committed(queue)
            self._positions.setdefault(queue, max(first, committed or 0))
        return self._positions[queue]

    def _check_subscribed(self, topic: str) -> None:
        if topic not in self._subscriptions:
            raise InvalidArgument(f"topic {topic} is not among the subscriptions")

    def _settings(self) -> v2.Settings:
        return settings.subscribing(v2.PULL_CONSUMER, self._group, self._subscriptions)


class PullConsumer:
    """Reads queues by offset when asked, from any thread; see AsyncPullConsumer."""

    def __init__(
        self,
        group: str,
        subscriptions: Mapping[str, Filter],
        namesrv: str | Sequence[str] | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        """See AsyncPullConsumer."""
        self._consumer = AsyncPullConsumer(group, subscriptions, namesrv, **options)

    @property
    def client_id(self) -> str:
        return self._consumer.client_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def queues(self, topic: str) -> list[Queue]:
        """See AsyncPullConsumer.queues."""
        return portal.run(self._consumer.queues(topic))

    def pull(self, queue: Queue, max_messages: int = MAX_MESSAGES, *, wait_s: float = WAIT_S) -> list[ReceivedMessage]:
        """See AsyncPullConsumer.pull."""
        return portal.run(self._consumer.pull(queue, max_messages, wait_s=wait_s))

    def position(self, queue: Queue) -> int | None:
        """See AsyncPullConsumer.position."""
        return self._consumer.position(queue)

    def seek(self, queue: Queue, offset: int) -> None:
        """See AsyncPullConsumer.seek."""
        self._consumer.seek(queue, offset)

    def offset(self, queue: Queue, where: Where) -> int:
        """See AsyncPullConsumer.offset."""
        return portal.run(self._consumer.offset(queue, where))

    def commit(self, queue: Queue) -> None:
        """See AsyncPullConsumer.commit."""
        portal.run(self._consumer.commit(queue))

    def committed(self, queue: Queue) -> int | None:
        """See AsyncPullConsumer.committed."""
        return portal.run(self._consumer.committed(queue))

    def close(self) -> None:
        portal.run(self._consumer.close())
