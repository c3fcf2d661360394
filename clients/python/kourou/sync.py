"""The blocking classes: the same methods as their Async siblings, from any thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Generic, Self, TypeVar

from typing_extensions import Unpack

from kourou import portal
from kourou.broadcasting import Broadcasting
from kourou.client import ClientOptions
from kourou.codecs import Compression
from kourou.filters import Filter
from kourou.handover import Handover
from kourou.listening import BatchListener, Listener
from kourou.lite_consumers import AsyncLitePushConsumer, AsyncLiteSimpleConsumer
from kourou.lite_topics import LiteStart, OnLost
from kourou.message import Message
from kourou.producer import MAX_WAITING_BYTES, SEND_TIMEOUT_S, AsyncProducer
from kourou.push_consumer import CLOSE_GRACE_S, CONCURRENCY, MAX_CACHED_BYTES, MAX_CACHED_COUNT, AsyncPushConsumer
from kourou.received import ReceivedMessage
from kourou.results import SendResult
from kourou.simple_consumer import INVISIBLE_DURATION_S, MAX_MESSAGES, WAIT_S, AsyncSimpleConsumer, Receiver
from kourou.transactions import AsyncTransaction, TransactionChecker


class Transaction:
    """One message and a block that belongs to it. See AsyncTransaction."""

    def __init__(self, transaction: AsyncTransaction) -> None:
        self._transaction = transaction

    @property
    def result(self) -> SendResult:
        """Of the message, within the block and after it."""
        return self._transaction.result

    def rollback(self) -> None:
        """At the end of the block the message is dropped."""
        self._transaction.rollback()

    def __enter__(self) -> Self:
        portal.run(self._transaction.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        portal.run(self._transaction.__aexit__(kind, error, trace))


class Producer:
    """Sends messages, from any number of threads."""

    def __init__(
        self,
        namesrv: str | Sequence[str] | None = None,
        *,
        group: str | None = None,
        send_timeout_s: float = SEND_TIMEOUT_S,
        transaction_checker: TransactionChecker | None = None,
        topics: Sequence[str] = (),
        compression: Compression | None = None,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        **options: Unpack[ClientOptions],
    ) -> None:
        """See AsyncProducer."""
        self._producer = AsyncProducer(
            namesrv,
            group=group,
            send_timeout_s=send_timeout_s,
            transaction_checker=transaction_checker,
            topics=topics,
            compression=compression,
            max_waiting_bytes=max_waiting_bytes,
            **options,
        )
        put = self._producer._put_any  # pyright: ignore[reportPrivateUsage]  (the class behind this one)
        self._handover = Handover(put, max_waiting_bytes)

    @property
    def client_id(self) -> str:
        return self._producer.client_id

    def __enter__(self) -> Self:
        portal.run(self._producer.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """See AsyncProducer.start."""
        portal.run(self._producer.start())

    def send(self, message: Message, *, timeout_s: float | None = None) -> SendResult:
        """Returns when the broker has stored the message. Raises TopicNotFound, TimeoutExceeded and their kin."""
        future = self._handover.put(message, timeout_s)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def send_soon(self, message: Message, *, timeout_s: float | None = None) -> Future[SendResult]:
        """Returns as soon as there is room for the message (`max_waiting_bytes`): with the future of its result, which
        raises what `send` raises."""
        return self._handover.put(message, timeout_s)

    def send_many(self, messages: Sequence[Message], *, timeout_s: float | None = None) -> Sequence[SendResult]:
        """See AsyncProducer.send_many."""
        return portal.run(self._producer.send_many(messages, timeout_s=timeout_s))

    def transaction(self, message: Message, *, timeout_s: float | None = None) -> Transaction:
        """A message that is delivered only if the block ends well, with what belongs to it:

            with producer.transaction(Message("orders", b"...", keys=["order-17"])):
                database.commit()

        See AsyncProducer.transaction and AsyncTransaction."""
        return Transaction(self._producer.transaction(message, timeout_s=timeout_s))

    def recall(self, topic: str, recall_handle: str) -> str:
        """See AsyncProducer.recall."""
        return portal.run(self._producer.recall(topic, recall_handle))

    def close(self) -> None:
        portal.run(self._producer.close())


C = TypeVar("C", bound=Receiver)
P = TypeVar("P", bound=AsyncPushConsumer)


class _Receiving(Generic[C]):
    def __init__(self, consumer: C) -> None:
        self._consumer = consumer

    @property
    def client_id(self) -> str:
        return self._consumer.client_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def receive(
        self,
        max_messages: int = MAX_MESSAGES,
        *,
        invisible_duration_s: float = INVISIBLE_DURATION_S,
        wait_s: float = WAIT_S,
    ) -> list[ReceivedMessage]:
        """See AsyncSimpleConsumer.receive."""
        received = self._consumer.receive(max_messages, invisible_duration_s=invisible_duration_s, wait_s=wait_s)
        return portal.run(received)

    def ack(self, messages: ReceivedMessage | Sequence[ReceivedMessage]) -> None:
        """See AsyncSimpleConsumer.ack."""
        portal.run(self._consumer.ack(messages))

    def change_invisible_duration(self, message: ReceivedMessage, duration_s: float) -> None:
        """See AsyncSimpleConsumer.change_invisible_duration."""
        portal.run(self._consumer.change_invisible_duration(message, duration_s))

    def close(self) -> None:
        portal.run(self._consumer.close())


class SimpleConsumer(_Receiving[AsyncSimpleConsumer]):
    """Receives messages when asked, and settles each as the caller says."""

    def __init__(
        self,
        group: str,
        subscriptions: Mapping[str, Filter],
        namesrv: str | Sequence[str] | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        """See AsyncSimpleConsumer."""
        super().__init__(AsyncSimpleConsumer(group, subscriptions, namesrv, **options))

    def subscribe(self, topic: str, tags: Filter = "*") -> None:
        """See AsyncSimpleConsumer.subscribe."""
        portal.run(self._consumer.subscribe(topic, tags))

    def unsubscribe(self, topic: str) -> None:
        portal.run(self._consumer.unsubscribe(topic))


class LiteSimpleConsumer(_Receiving[AsyncLiteSimpleConsumer]):
    """Receives messages of lite topics when asked, and settles each as the caller says."""

    def __init__(
        self,
        group: str,
        topic: str,
        namesrv: str | Sequence[str] | None = None,
        *,
        on_lost: OnLost | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        """See AsyncLiteSimpleConsumer. `on_lost` is called on the event loop of the clients, and must not block it."""
        super().__init__(AsyncLiteSimpleConsumer(group, topic, namesrv, on_lost=on_lost, **options))

    @property
    def lite_topics(self) -> frozenset[str]:
        """Those that it reads."""
        return self._consumer.lite_topics

    def subscribe(self, lite_topic: str, *, start: LiteStart | None = None) -> None:
        """See AsyncLiteSimpleConsumer.subscribe."""
        portal.run(self._consumer.subscribe(lite_topic, start=start))

    def unsubscribe(self, lite_topic: str) -> None:
        portal.run(self._consumer.unsubscribe(lite_topic))


class _Pushing(Generic[P]):
    def __init__(self, consumer: P) -> None:
        self._consumer = consumer

    @property
    def client_id(self) -> str:
        return self._consumer.client_id

    def __enter__(self) -> Self:
        portal.run(self._consumer.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """See AsyncPushConsumer.start."""
        portal.run(self._consumer.start())

    def close(self) -> None:
        """See AsyncPushConsumer.close."""
        portal.run(self._consumer.close())


class PushConsumer(_Pushing[AsyncPushConsumer]):
    """Calls a listener in threads with each message, or with many; a coroutine function on the clients' event loop."""

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
        """See AsyncPushConsumer."""
        consumer = AsyncPushConsumer(
            group,
            subscriptions,
            listener,
            namesrv,
            batch_listener=batch_listener,
            concurrency=concurrency,
            broadcasting=broadcasting,
            max_cached_count=max_cached_count,
            max_cached_bytes=max_cached_bytes,
            close_grace_s=close_grace_s,
            **options,
        )
        super().__init__(consumer)


class LitePushConsumer(_Pushing[AsyncLitePushConsumer]):
    """Calls a listener with each message of the lite topics that it reads, as PushConsumer does."""

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
        """See AsyncLitePushConsumer. `on_lost` is called on the event loop of the clients, and must not block it."""
        consumer = AsyncLitePushConsumer(
            group,
            topic,
            listener,
            namesrv,
            on_lost=on_lost,
            concurrency=concurrency,
            max_cached_count=max_cached_count,
            max_cached_bytes=max_cached_bytes,
            close_grace_s=close_grace_s,
            **options,
        )
        super().__init__(consumer)

    @property
    def lite_topics(self) -> frozenset[str]:
        """Those that it reads."""
        return self._consumer.lite_topics

    def subscribe(self, lite_topic: str, *, start: LiteStart | None = None) -> None:
        """See AsyncLiteSimpleConsumer.subscribe."""
        portal.run(self._consumer.subscribe(lite_topic, start=start))

    def unsubscribe(self, lite_topic: str) -> None:
        portal.run(self._consumer.unsubscribe(lite_topic))
