"""Kourou's own library, by either door."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.rivals.applications.application import (
    Acked,
    Application,
    Came,
    Consumer,
    Publisher,
    some_at_a_time,
)
from kourou import AsyncProducer, AsyncSimpleConsumer, Message
from kourou.client import ClientOptions

_BATCHES_IN_FLIGHT = 32
_RECEIVERS = {"stream": 2, "rocketmq": 16}
_AT_ONCE = {"stream": 512, "rocketmq": 32}
"""Messages a receive, and receives at a time: the compatible door has a call for each of them."""
_WAIT_S = 1.0


class KourouPublisher(Publisher):
    def __init__(self, producer: AsyncProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    async def publish(self, batches: AsyncIterator[Sequence[bytes]], acked: Acked) -> None:
        async def send(batch: Sequence[bytes]) -> None:
            await self._producer.send_many([Message(self._topic, body) for body in batch])

        await some_at_a_time(batches, send, acked, in_flight=_BATCHES_IN_FLIGHT)

    async def publish_one(self, body: bytes) -> None:
        await self._producer.send(Message(self._topic, body))


class KourouConsumer(Consumer):
    def __init__(self, consumer: AsyncSimpleConsumer, receivers: int, at_once: int) -> None:
        self._consumer = consumer
        self._receivers = receivers
        self._at_once = at_once
        self._enough = False

    async def consume(self, came: Came) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._receivers):
                tasks.create_task(self._receive(came))

    async def _receive(self, came: Came) -> None:
        while not self._enough:
            messages = await self._consumer.receive(self._at_once, wait_s=_WAIT_S)
            if messages:
                self._enough |= came([message.body for message in messages])
                await self._consumer.ack(messages)


class KourouApplication(Application):
    @asynccontextmanager
    async def publisher(self, topic: str, *, prompt: bool) -> AsyncIterator[Publisher]:
        async with AsyncProducer(self.address, topics=[topic], **self._options()) as producer:
            yield KourouPublisher(producer, topic)

    @asynccontextmanager
    async def consumer(self, topic: str, group: str, *, prompt: bool) -> AsyncIterator[Consumer]:
        async with AsyncSimpleConsumer(group, {topic: "*"}, self.address, **self._options()) as consumer:
            receivers = 2 if prompt else _RECEIVERS[self.door]
            yield KourouConsumer(consumer, receivers, _AT_ONCE[self.door])

    def _options(self) -> Any:
        return {"door": self.door} if has_doors() else {}


def has_doors() -> bool:
    """A library without a choice of doors has the compatible one only."""
    return "door" in {*inspect.signature(AsyncProducer).parameters, *ClientOptions.__annotations__}
