"""Kourou, the client: send and receive messages of a cluster that speaks the RocketMQ 5 API.

    from kourou import Message, Producer, SimpleConsumer

    with Producer("127.0.0.1:8081") as producer:
        producer.send(Message("flights", b"CDG-CAY"))

    with SimpleConsumer("readers", {"flights": "*"}) as consumer:
        for message in consumer.receive():
            print(message.body)
            consumer.ack(message)

Each class has an asyncio sibling with the same methods: AsyncProducer, AsyncSimpleConsumer, AsyncPushConsumer.
PullConsumer reads queues by offset.
LitePushConsumer and LiteSimpleConsumer read lite topics.
"""

import logging

import kourou.grpc_log  # noqa: F401  # pyright: ignore[reportUnusedImport]  (it comes first)

# isort: split
from kourou.broadcasting import Broadcasting
from kourou.errors import (
    AccessDenied,
    ClosedError,
    ConnectionFailed,
    CorruptMessage,
    Forbidden,
    GroupNotFound,
    InvalidArgument,
    InvalidReceiptHandle,
    InvalidRequest,
    KourouError,
    MessageTooLarge,
    NotFound,
    PartialFailure,
    ServerError,
    ServerFailure,
    TimeoutExceeded,
    TooManyRequests,
    TopicNotFound,
    Unsupported,
)
from kourou.filters import Sql
from kourou.lite_consumers import AsyncLitePushConsumer, AsyncLiteSimpleConsumer
from kourou.lite_topics import Tail
from kourou.message import Message, MessageType
from kourou.message_id import OffsetMessageId
from kourou.producer import AsyncProducer
from kourou.pull_consumer import AsyncPullConsumer, PullConsumer
from kourou.push_consumer import AsyncPushConsumer
from kourou.received import ReceivedMessage
from kourou.results import SendResult
from kourou.route import Queue
from kourou.simple_consumer import AsyncSimpleConsumer
from kourou.sync import LitePushConsumer, LiteSimpleConsumer, Producer, PushConsumer, SimpleConsumer, Transaction
from kourou.transactions import AsyncTransaction, TransactionResolution

__all__ = [
    "AccessDenied",
    "AsyncLitePushConsumer",
    "AsyncLiteSimpleConsumer",
    "AsyncProducer",
    "AsyncPullConsumer",
    "AsyncPushConsumer",
    "AsyncSimpleConsumer",
    "AsyncTransaction",
    "Broadcasting",
    "ClosedError",
    "ConnectionFailed",
    "CorruptMessage",
    "Forbidden",
    "GroupNotFound",
    "InvalidArgument",
    "InvalidReceiptHandle",
    "InvalidRequest",
    "KourouError",
    "LitePushConsumer",
    "LiteSimpleConsumer",
    "Message",
    "MessageTooLarge",
    "MessageType",
    "NotFound",
    "OffsetMessageId",
    "PartialFailure",
    "Producer",
    "PullConsumer",
    "PushConsumer",
    "Queue",
    "ReceivedMessage",
    "SendResult",
    "ServerError",
    "ServerFailure",
    "SimpleConsumer",
    "Sql",
    "Tail",
    "TimeoutExceeded",
    "TooManyRequests",
    "TopicNotFound",
    "Transaction",
    "TransactionResolution",
    "Unsupported",
]

# Quiet until the program says otherwise; see the logger "kourou".
logging.getLogger(__name__).addHandler(logging.NullHandler())
