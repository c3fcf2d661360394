"""aio-pika: a quorum queue for each topic, publishers with confirms."""

# pyright: reportMissingImports=false

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aio_pika

from benchmarks.rivals.applications.application import (
    Acked,
    Application,
    Came,
    Consumer,
    Publisher,
    some_at_a_time,
)

_BATCHES_IN_FLIGHT = 8
_PREFETCH = 1000
_ACK_AFTER = 100
_ARGUMENTS = {"x-queue-type": "quorum"}


class RabbitPublisher(Publisher):
    def __init__(self, channel: Any, topic: str) -> None:
        self._exchange = channel.default_exchange
        self._topic = topic

    async def publish(self, batches: AsyncIterator[Sequence[bytes]], acked: Acked) -> None:
        async def send(batch: Sequence[bytes]) -> None:
            await asyncio.gather(*map(self.publish_one, batch))

        await some_at_a_time(batches, send, acked, in_flight=_BATCHES_IN_FLIGHT)

    async def publish_one(self, body: bytes) -> None:
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await self._exchange.publish(message, routing_key=self._topic)


class RabbitConsumer(Consumer):
    def __init__(self, queue: Any, ack_after: int) -> None:
        self._queue = queue
        self._ack_after = ack_after

    async def consume(self, came: Came) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        unacknowledged = 0

        async def on_message(message: Any) -> None:
            nonlocal unacknowledged
            unacknowledged += 1
            enough = came((message.body,))
            if enough or unacknowledged >= self._ack_after:
                unacknowledged = 0
                await message.ack(multiple=True)
            if enough and not ended.done():
                ended.set_result(None)

        tag = await self._queue.consume(on_message)
        await ended
        await self._queue.cancel(tag)


class RabbitApplication(Application):
    async def create_topics(self, names: Sequence[str]) -> None:
        async with self._channel() as channel:
            for name in names:
                await channel.declare_queue(name, durable=True, arguments=_ARGUMENTS)

    @asynccontextmanager
    async def publisher(self, topic: str, *, prompt: bool) -> AsyncIterator[Publisher]:
        async with self._channel() as channel:
            yield RabbitPublisher(channel, topic)

    @asynccontextmanager
    async def consumer(self, topic: str, group: str, *, prompt: bool) -> AsyncIterator[Consumer]:
        async with self._channel() as channel:
            await channel.set_qos(prefetch_count=_PREFETCH)
            queue = await channel.declare_queue(topic, durable=True, arguments=_ARGUMENTS)
            yield RabbitConsumer(queue, 1 if prompt else _ACK_AFTER)

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[Any]:
        async with await aio_pika.connect(f"amqp://guest:guest@{self.address}/") as connection:
            yield await connection.channel(publisher_confirms=True)
