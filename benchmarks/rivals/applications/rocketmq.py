"""The official client of RocketMQ 5 for Python. It works in threads of its own, and blocks its caller."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rocketmq import (
    ClientConfiguration,
    ConsumeResult,
    Credentials,
    FilterExpression,
    Message,
    MessageListener,
    Producer,
    PushConsumer,
)

from benchmarks.rivals.applications.application import Acked, Application, Came, Consumer, Publisher

_IN_FLIGHT = 256


class RocketmqPublisher(Publisher):
    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    async def publish(self, batches: AsyncIterator[Sequence[bytes]], acked: Acked) -> None:
        room = threading.Semaphore(_IN_FLIGHT)
        errors: list[BaseException] = []

        def done(future) -> None:
            if error := future.exception():
                errors.append(error)
            else:
                acked(1)
            room.release()

        async for batch in batches:
            for body in batch:
                room.acquire()
                self._producer.send_async(self._message(body)).add_done_callback(done)
                if errors:
                    raise errors[0]
        for _ in range(_IN_FLIGHT):
            room.acquire()
        if errors:
            raise errors[0]

    async def publish_one(self, body: bytes) -> None:
        self._producer.send(self._message(body))

    def _message(self, body: bytes) -> Message:
        message = Message()
        message.topic, message.body = self._topic, body
        return message


class _Listener(MessageListener):
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = threading.Event()
        self._came: Came | None = None
        self.enough = threading.Event()

    def start(self, came: Came) -> None:
        self._came = came
        self._started.set()

    def consume(self, message: Message) -> ConsumeResult:
        self._started.wait()
        assert self._came is not None
        with self._lock:
            if self._came((message.body or b"",)):
                self.enough.set()
        return ConsumeResult.SUCCESS


class RocketmqConsumer(Consumer):
    attentive_after_s = 2.0  # it first looks for its queues after a second

    def __init__(self, listener: _Listener) -> None:
        self._listener = listener

    async def consume(self, came: Came) -> None:
        self._listener.start(came)
        # In slices: the wait can be given up in between.
        while not await asyncio.to_thread(self._listener.enough.wait, 0.2):
            pass


class RocketmqApplication(Application):
    @asynccontextmanager
    async def publisher(self, topic: str, *, prompt: bool) -> AsyncIterator[Publisher]:
        producer = Producer(self._configuration(), (topic,))
        producer.startup()
        try:
            yield RocketmqPublisher(producer, topic)
        finally:
            producer.shutdown()

    @asynccontextmanager
    async def consumer(self, topic: str, group: str, *, prompt: bool) -> AsyncIterator[Consumer]:
        listener = _Listener()
        consumer = PushConsumer(self._configuration(), group, listener, {topic: FilterExpression()})
        consumer.startup()
        try:
            yield RocketmqConsumer(listener)
        finally:
            consumer.shutdown()

    def _configuration(self) -> ClientConfiguration:
        return ClientConfiguration(self.address, Credentials())
