"""Sends messages."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Sequence
from types import TracebackType
from typing import Self

from typing_extensions import Unpack

from kourou import commands, settings
from kourou.client import Client, ClientOptions
from kourou.course import Course
from kourou.delivery import Delivery
from kourou.errors import InvalidArgument, KourouError, PartialFailure
from kourou.message import Message, MessageType, SendResult, to_half_message, to_protobuf
from kourou.message_id import new_message_id
from kourou.names import topic_fault
from kourou.ordered import Lines
from kourou.parcelling import strands
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp
from kourou.transactions import AsyncTransaction, Checks, TransactionChecker, TransactionResolution, end_transaction

PRODUCER_GROUP_HEADER = "x-kourou-producer-group"
SEND_TIMEOUT_S = 5.0
"""Over all tries of a message: a broker that restarts after a crash is back within it."""
_PARCELS_AT_A_TIME = 16
"""Of one send_many: enough to keep several brokers busy, few enough that none waits long for its turn to leave."""


class AsyncProducer:
    """Sends messages, on one event loop; any number of tasks may share it.

    What is sent while requests to the same broker are under way shares the next one, so tasks that send at the same
    time are served in batches without a delay for any of them. A message that is tried again at the broker that has it
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
        **options: Unpack[ClientOptions],
    ) -> None:
        """`namesrv`: "host:port" of one or several NameServers; else from KOUROU_NAMESRV, else the local cluster.
        `group`: the producer group, under which the admin service lists this producer.
        `transaction_checker`: asked by brokers about messages whose transaction was left open, by this producer or by
        another one of the same topic; needed for `transaction`.
        `topics`: what it is going to send to, so that brokers find it before its first message."""
        for topic in topics:
            if fault := topic_fault(topic):
                raise InvalidArgument(fault)
        headers = [(PRODUCER_GROUP_HEADER, group)] if group else []
        self._client = Client(namesrv, self._settings, group=group, options=options, headers=headers)
        self._delivery = Delivery(self._client)
        self._lines = Lines(self._delivery)
        self._send_timeout_s = send_timeout_s
        self._turns = {topic: _first_turn() for topic in topics}
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
            for topic in list(self._turns):
                await self._client.session.settled((await self._client.routes.get(topic)).addresses)

    async def send(self, message: Message, *, timeout_s: float | None = None) -> SendResult:
        """Returns when the broker has stored the message. Raises TopicNotFound, TimeoutExceeded and their kin."""
        return (await self._deliver([message], timeout_s))[0]

    async def send_many(self, messages: Sequence[Message], *, timeout_s: float | None = None) -> list[SendResult]:
        """The results in the order of the messages, which may be of several topics. They travel in requests of up to
        128 messages, and the time-out is that of each request. Of a message group, what follows a request that failed
        is not sent and has its error. Raises PartialFailure when only some were stored, and the first error itself
        when none was."""
        turns = asyncio.Semaphore(_PARCELS_AT_A_TIME)
        outcomes: dict[int, SendResult | KourouError] = {}

        async def attempt(strand: list[list[int]]) -> None:
            """One request after the other, as long as they succeed."""
            failure: KourouError | None = None
            for share in strand:
                if failure is None:
                    async with turns:
                        try:
                            results = await self._deliver([messages[index] for index in share], timeout_s)
                            outcomes.update(zip(share, results, strict=True))
                        except KourouError as error:
                            failure = error
                if failure is not None:
                    outcomes.update(dict.fromkeys(share, failure))

        await asyncio.gather(*map(attempt, strands(messages)))
        in_order = [outcomes[index] for index in range(len(messages))]
        results = [outcome for outcome in in_order if isinstance(outcome, SendResult)]
        if len(results) == len(messages):
            return results
        if results:
            raise PartialFailure("sending", in_order)
        raise next(outcome for outcome in in_order if isinstance(outcome, KourouError))

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
        timeout_s = self._send_timeout_s if timeout_s is None else timeout_s

        async def begin() -> SendResult:
            turn = self._next_turn(message.topic)
            half = to_half_message(message, new_message_id(), _now())
            return (await self._delivery.deliver(Course(message.topic, turn), [half], timeout_s, sort=None))[0]

        async def end(sent: SendResult, resolution: TransactionResolution) -> None:
            with self._client.in_use():
                await end_transaction(self._client, sent, resolution, timeout_s)

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
        await self._client.close()
        await self._lines.close()
        await self._delivery.close()
        if self._checks is not None:
            self._checks.close()

    def _settings(self) -> v2.Settings:
        return settings.publishing(self._turns)

    def _deliver(self, messages: Sequence[Message], timeout_s: float | None) -> Awaitable[list[SendResult]]:
        """Messages of one topic and sort, and of one message group or lite topic if of any."""
        first = messages[0]
        timeout_s = self._send_timeout_s if timeout_s is None else timeout_s
        turn = self._next_turn(first.topic)
        encoded = _encoded(messages)
        group = first.message_group or first.lite_topic
        if group is not None:
            return self._deliver_in_line(first.topic, group, encoded, timeout_s)
        return self._delivery.deliver(Course(first.topic, turn), encoded, timeout_s, (first.type, first.priority))

    async def _deliver_in_line(
        self, topic: str, group: str, encoded: Sequence[v2.Message], timeout_s: float
    ) -> list[SendResult]:
        with self._client.in_use():
            return await self._lines.send(topic, group, encoded, timeout_s)

    def _next_turn(self, topic: str) -> int:
        turn = self._turns.get(topic)
        if turn is None:
            turn = _first_turn()
            self._client.session.announce_soon()
        self._turns[topic] = turn + 1
        return turn


def _encoded(messages: Sequence[Message]) -> list[v2.Message]:
    born = _now()
    return [to_protobuf(message, new_message_id(), born) for message in messages]


def _first_turn() -> int:
    # At random: producers that start together do not meet at the same queue.
    return random.randrange(1 << 16)


def _now() -> Timestamp:
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)
