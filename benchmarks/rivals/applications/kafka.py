"""confluent-kafka: Kafka's client in C with a Python face."""

# pyright: reportMissingImports=false

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from confluent_kafka import Consumer as KafkaClientConsumer
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.rivals.applications.application import Acked, Application, Came, Consumer, Publisher
from benchmarks.rivals.system import QUEUES

_AT_ONCE = 500
"""What a poll gives at most, as in Kafka's Java client."""
_POLL_S = 0.1


class KafkaPublisher(Publisher):
    def __init__(self, producer: Any, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    async def publish(self, batches: AsyncIterator[Sequence[bytes]], acked: Acked) -> None:
        errors: list[Any] = []

        def delivered(error: Any, _message: Any) -> None:
            if error is None:
                acked(1)
            else:
                errors.append(error)

        producer, topic = self._producer, self._topic
        async for batch in batches:
            for body in batch:
                while True:
                    try:
                        producer.produce(topic, body, on_delivery=delivered)
                        break
                    except BufferError:  # its queue is full
                        producer.poll(0.01)
            producer.poll(0)
            if errors:
                raise KafkaException(errors[0])
        producer.flush()
        if errors:
            raise KafkaException(errors[0])

    async def publish_one(self, body: bytes) -> None:
        errors: list[Any] = []
        self._producer.produce(self._topic, body, on_delivery=lambda error, _: errors.append(error))
        while not errors:
            self._producer.poll(1)
        if errors[0] is not None:
            raise KafkaException(errors[0])


class KafkaConsumer(Consumer):
    def __init__(self, consumer: Any, early: list[Any]) -> None:
        self._consumer = consumer
        self._early = early

    async def consume(self, came: Came) -> None:
        enough = False
        while not enough:
            messages, self._early = self._early or self._consumer.consume(_AT_ONCE, timeout=_POLL_S), []
            enough = came([_body(message) for message in messages])
            if messages:
                self._consumer.commit(asynchronous=False)


class PromptKafkaConsumer(KafkaConsumer):
    """Takes what is there as soon as anything is: `consume` waits until it has as many as it may give, or its time is
    over."""

    async def consume(self, came: Came) -> None:
        enough = False
        while not enough:
            messages, self._early = self._early, []
            if not messages and (first := self._consumer.poll(_POLL_S)) is not None:
                messages = [first, *self._consumer.consume(_AT_ONCE - 1, timeout=0)]
            enough = came([_body(message) for message in messages])
            if messages:
                self._consumer.commit(asynchronous=True)


def _body(message: Any) -> bytes:
    if error := message.error():
        raise KafkaException(error)
    return message.value()


class KafkaApplication(Application):
    async def create_topics(self, names: Sequence[str]) -> None:
        client = AdminClient({"bootstrap.servers": self.address})
        for created in client.create_topics([NewTopic(name, QUEUES, 1) for name in names]).values():
            try:
                created.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise

    @asynccontextmanager
    async def publisher(self, topic: str, *, prompt: bool) -> AsyncIterator[Publisher]:
        settings: dict[str, Any] = {"bootstrap.servers": self.address, "acks": "all"}
        if prompt:
            settings["linger.ms"] = 0
        producer = Producer(settings)
        yield KafkaPublisher(producer, topic)
        producer.flush()

    @asynccontextmanager
    async def consumer(self, topic: str, group: str, *, prompt: bool) -> AsyncIterator[Consumer]:
        consumer = KafkaClientConsumer(
            {
                "bootstrap.servers": self.address,
                "group.id": f"{group}-{topic}",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        try:
            assigned: list[Any] = []
            early: list[Any] = []
            consumer.subscribe([topic], on_assign=lambda _, partitions: assigned.extend(partitions))
            while not assigned:
                if (message := consumer.poll(_POLL_S)) is not None:
                    early.append(message)
            yield (PromptKafkaConsumer if prompt else KafkaConsumer)(consumer, early)
        finally:
            consumer.close()
