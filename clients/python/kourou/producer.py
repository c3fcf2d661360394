"""Sends messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from typing_extensions import Unpack

from kourou import commands, settings
from kourou.bulks import send_all
from kourou.client import Client, ClientOptions
from kourou.codecs import CODEC_OF, Compression
from kourou.errors import InvalidArgument
from kourou.frame import AnyFuture, Kind, Single
from kourou.lane import Lane
from kourou.lanes import Lanes
from kourou.memory import Memory
from kourou.message import Message, MessageType
from kourou.message_id import STORED_KEY
from kourou.names import topic_fault
from kourou.outbox import EitherOutbox
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.results import SendResult
from kourou.rocketmq_outbox import RocketmqOutbox
from kourou.stream_outbox import StreamOutbox
from kourou.transactions import AsyncTransaction, Checks, TransactionChecker, TransactionResolution, end_transaction

PRODUCER_GROUP_HEADER = "x-kourou-producer-group"
SEND_TIMEOUT_S = 5.0
"""Over all tries of a message: a broker that restarts after a crash is back within it."""
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Of messages that are not answered yet."""


class AsyncProducer:
    """Sends messages, on one event loop; any number of tasks may share it.

    What is sent while frames to the same broker are under way shares the next one, so what is sent at the same time
    travels in batches without a delay for any of it. A message that is tried again at the broker that has it
    is not stored twice; it may be when that one breaks before its answer and the retry goes to another one, with the
    same message id. Messages of one message group all go to one queue, in the order of the calls.
    """

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
        """`namesrv`: "host:port" of one or several NameServers; else from KOUROU_NAMESRV, else the local cluster.
        `group`: the producer group, under which the admin service lists this producer.
        `transaction_checker`: asked by brokers about messages whose transaction was left open, by this producer or by
        another one of the same topic; needed for `transaction`.
        `topics`: what it is going to send to, so that brokers find it before its first message.
        `compression`: "zstd" or "lz4" packs the bodies of each frame, by the stream door, if that makes it smaller.
        `max_waiting_bytes`: with so much sent and not answered, `send` and `send_soon` wait."""
        for topic in topics:
            if fault := topic_fault(topic):
                raise InvalidArgument(fault)
        if compression is not None and compression not in CODEC_OF:
            raise InvalidArgument(f"the compression is {compression!r}, not one of {', '.join(CODEC_OF)} or None")
        if max_waiting_bytes < 1:
            raise InvalidArgument("max_waiting_bytes is at least 1")
        headers = [(STORED_KEY, "")]
        if group:
            headers.append((PRODUCER_GROUP_HEADER, group))
        self._client = Client(namesrv, self._settings, group=group, options=options, headers=headers)
        wire = self._client.wire
        outbox = EitherOutbox(self._client.doors, StreamOutbox(wire, compression), RocketmqOutbox(wire))
        self._memory = Memory(max_waiting_bytes)
        self._lanes = Lanes(self._client, outbox, self._memory, self._use)
        self._send_timeout_s = send_timeout_s
        self._topics = dict.fromkeys(topics)
        self._checks: Checks | None = None
        if transaction_checker is not None:
            self._checks = Checks(self._client, transaction_checker)
            self._client.session.handlers[commands.CHECK_TRANSACTION] = self._checks.check

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
        """Makes it known to the brokers of its `topics`; without those, the first message does. Raises TopicNotFound,
        ConnectionFailed."""
        with self._client.in_use():
            for topic in list(self._topics):
                await self._client.session.settled((await self._client.routes.get(topic)).addresses)

    def send(self, message: Message, *, timeout_s: float | None = None) -> asyncio.Future[SendResult]:
        """`await` it: done when the broker has stored the message. It is on its way already, so many may be begun and
        awaited later; who begins more than fit in memory takes `send_soon`. Raises TopicNotFound, TimeoutExceeded and
        their kin when awaited, ClosedError at once."""
        if self._memory.is_full:
            return asyncio.create_task(self._send_in_turn(message, timeout_s))
        future = asyncio.Future[SendResult]()
        self._put_any(message, timeout_s, future)
        return future

    async def send_soon(self, message: Message, *, timeout_s: float | None = None) -> asyncio.Future[SendResult]:
        """Returns as soon as there is room for the message (`max_waiting_bytes`): with the future of its result, which
        raises what `send` raises."""
        while self._memory.is_full:
            await self._memory.room()
        future = asyncio.Future[SendResult]()
        self._put_any(message, timeout_s, future)
        return future

    async def send_many(self, messages: Sequence[Message], *, timeout_s: float | None = None) -> Sequence[SendResult]:
        """The results in the order of the messages, which may be of several topics. They travel in as few frames as
        they fit in, and the time-out is that of each frame. Of a message group, what follows a frame that failed is
        not sent and has its error. Raises PartialFailure when only some were stored, and the first error itself when
        none was."""
        self._client.check_open()
        return await send_all(self._lanes, list(messages), self._timeout_s(timeout_s))

    def transaction(self, message: Message, *, timeout_s: float | None = None) -> AsyncTransaction:
        """A message that is delivered only if the block ends well, with what belongs to it:

            async with producer.transaction(Message("orders", b"...", keys=["order-17"])):
                await database.commit()

        See AsyncTransaction; `timeout_s` as with `send`. Raises InvalidArgument without a transaction checker, or for
        a message that is of another type already."""
        if self._checks is None:
            text = "a producer without transaction_checker cannot begin a transaction: nobody could end one left open"
            raise InvalidArgument(text)
        if message.type is not MessageType.NORMAL:
            raise InvalidArgument(f"a {message.type} message cannot be part of a transaction")

        async def begin() -> SendResult:
            future = asyncio.Future[SendResult]()
            lane = self._lanes.for_kind(Kind(message.topic, MessageType.TRANSACTION))
            self._put(lane, message, timeout_s, future)
            return await future

        async def end(sent: SendResult, resolution: TransactionResolution) -> None:
            with self._client.in_use():
                await end_transaction(self._client, sent, resolution, self._timeout_s(timeout_s))

        return AsyncTransaction(begin, end)

    async def recall(self, topic: str, recall_handle: str) -> str:
        """Takes a delayed message back before its time; returns its message id. `recall_handle`: of its SendResult.
        Raises NotFound when it was delivered or recalled already, InvalidRequest for a handle of another topic."""

        def request(endpoints: v2.Endpoints) -> service_pb2.RecallMessageRequest:
            return service_pb2.RecallMessageRequest(topic=v2.Resource(name=topic), recall_handle=recall_handle)

        if not recall_handle:
            raise InvalidArgument("the recall handle is empty")
        with self._client.in_use():
            return (await self._client.name_servers.call(service_rpc.RECALL_MESSAGE, request)).message_id

    async def close(self) -> None:
        """What is still being sent ends with ClosedError, and may be stored or not."""
        await self._lanes.close()
        await self._client.close()
        if self._checks is not None:
            self._checks.close()

    def _settings(self) -> v2.Settings:
        return settings.publishing(self._topics)

    def _timeout_s(self, timeout_s: float | None) -> float:
        return self._send_timeout_s if timeout_s is None else timeout_s

    async def _send_in_turn(self, message: Message, timeout_s: float | None) -> SendResult:
        return await (await self.send_soon(message, timeout_s=timeout_s))

    def _put(self, lane: Lane, message: Message, timeout_s: float | None, future: AnyFuture) -> None:
        if timeout_s is None:
            timeout_s = self._send_timeout_s
        self._memory.take(message)
        lane.put(Single(message, future, timeout_s, lane.now_s() + timeout_s))

    def _put_any(self, message: Message, timeout_s: float | None, future: AnyFuture) -> None:
        """The message is on its way, whether there is room or not. Raises ClosedError."""
        self._put(self._lanes.for_message(message), message, timeout_s, future)

    def _use(self, topic: str) -> None:
        if topic not in self._topics:
            self._topics[topic] = None
            self._client.session.announce_soon()
