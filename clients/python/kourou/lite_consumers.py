"""Consumers of lite topics: the small topics inside a topic of type LITE, of which each client reads its own."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import Unpack

from kourou.client import ClientOptions
from kourou.listening import Listener
from kourou.lite_topics import LiteStart, LiteTopics, OnLost
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.push_consumer import CLOSE_GRACE_S, CONCURRENCY, MAX_CACHED_BYTES, MAX_CACHED_COUNT, AsyncPushConsumer
from kourou.simple_consumer import Receiver


class AsyncLiteSimpleConsumer(Receiver):
    """Receives when asked, of each lite topic in order: nothing more before what was received of it is settled."""

    def __init__(
        self,
        group: str,
        topic: str,
        namesrv: str | Sequence[str] | None = None,
        *,
        on_lost: OnLost | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        """`group`: one that was made for lite topics of `topic`, which is of type LITE.
        `on_lost`: called with a lite topic that another member of an exclusive group has subscribed to."""
        super().__init__(v2.LITE_SIMPLE_CONSUMER, group, {topic: "*"}, namesrv, {**options, "door": "rocketmq"})
        self._lite_topics = LiteTopics(self._client, group, topic, on_lost)

    @property
    def lite_topics(self) -> frozenset[str]:
        """Those that it reads."""
        return self._lite_topics.names

    async def subscribe(self, lite_topic: str, *, start: LiteStart | None = None) -> None:
        """It need not be there yet. `start` moves the whole group; without, it goes on where it is, at first with the
        first message. Raises what the brokers refuse it with, as when the group's quota is used up."""
        await self._lite_topics.subscribe(lite_topic, start)

    async def unsubscribe(self, lite_topic: str) -> None:
        await self._lite_topics.unsubscribe(lite_topic)

    async def close(self) -> None:
        await self._lite_topics.stop()
        await super().close()


class AsyncLitePushConsumer(AsyncPushConsumer):
    """Calls its listener with each message of the lite topics that it reads, of each of them in order."""

    def __init__(
        self,
        group: str,
        topic: str,
        listener: Listener,
        namesrv: str | Sequence[str] | None = None,
        *,
        on_lost: OnLost | None = None,
        concurrency: int = CONCURRENCY,
        max_cached_count: int = MAX_CACHED_COUNT,
        max_cached_bytes: int = MAX_CACHED_BYTES,
        close_grace_s: float = CLOSE_GRACE_S,
        **options: Unpack[ClientOptions],
    ) -> None:
        """As AsyncPushConsumer; group, topic and on_lost as AsyncLiteSimpleConsumer."""
        options["door"] = "rocketmq"
        super().__init__(
            group,
            {topic: "*"},
            listener,
            namesrv,
            concurrency=concurrency,
            max_cached_count=max_cached_count,
            max_cached_bytes=max_cached_bytes,
            close_grace_s=close_grace_s,
            **options,
        )
        self._client_type = v2.LITE_PUSH_CONSUMER
        self._lite_topics = LiteTopics(self._client, group, topic, on_lost)

    @property
    def lite_topics(self) -> frozenset[str]:
        """Those that it reads."""
        return self._lite_topics.names

    async def subscribe(self, lite_topic: str, *, start: LiteStart | None = None) -> None:
        """See AsyncLiteSimpleConsumer.subscribe."""
        await self._lite_topics.subscribe(lite_topic, start)

    async def unsubscribe(self, lite_topic: str) -> None:
        await self._lite_topics.unsubscribe(lite_topic)

    async def close(self) -> None:
        await self._lite_topics.stop()
        await super().close()
