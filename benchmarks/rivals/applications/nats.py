"""nats-py: JetStream with a stream for each topic."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.js.api import AckPolicy, ConsumerConfig, StorageType

from benchmarks.rivals.applications.application import Acked, Application, Came, Consumer, Publisher

_AT_ONCE = 256
_MAX_UNACKNOWLEDGED = 10_000
_WAIT_S = 1.0


class NatsPublisher(Publisher):
    def __init__(self, jetstream: Any, topic: str) -> None:
        self._jetstream = jetstream
        self._topic = topic

    async def publish(self, batches: AsyncIterator[Sequence[bytes]], acked: Acked) -> None:
        errors: list[BaseException] = []

        def done(future: asyncio.Future[Any]) -> None:
            if error := future.exception():
                errors.append(error)
            else:
                acked(1)

        async for batch in batches:
            for body in batch:
                # Waits while as many are under way as the library allows, 4,000.
                (await self._jetstream.publish_async(self._topic, body)).add_done_callback(done)
            if errors:
                raise errors[0]
        await self._jetstream.publish_async_completed()
        if errors:
            raise errors[0]

    async def publish_one(self, body: bytes) -> None:
        await self._jetstream.publish(self._topic, body)


class NatsConsumer(Consumer):
    def __init__(self, subscription: Any) -> None:
        self._subscription = subscription

    async def consume(self, came: Came) -> None:
        enough = False
        while not enough:
            try:
                messages = await self._subscription.fetch(_AT_ONCE, timeout=_WAIT_S)
            except nats.errors.TimeoutError:
                continue
            enough = came([message.data for message in messages])
            for message in messages:
                await message.ack()


class NatsApplication(Application):
    async def create_topics(self, names: Sequence[str]) -> None:
        async with self._jetstream() as jetstream:
            for name in names:
                await jetstream.add_stream(name=name, subjects=[name], storage=StorageType.FILE)

    @asynccontextmanager
    async def publisher(self, topic: str, *, prompt: bool) -> AsyncIterator[Publisher]:
        async with self._jetstream() as jetstream:
            yield NatsPublisher(jetstream, topic)

    @asynccontextmanager
    async def consumer(self, topic: str, group: str, *, prompt: bool) -> AsyncIterator[Consumer]:
        configuration = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=_MAX_UNACKNOWLEDGED)
        async with self._jetstream() as jetstream:
            yield NatsConsumer(await jetstream.pull_subscribe(topic, durable=group, config=configuration))

    @asynccontextmanager
    async def _jetstream(self) -> AsyncIterator[Any]:
        connection = await nats.connect(f"nats://{self.address}")
        try:
            yield connection.jetstream()
        finally:
            await connection.drain()
