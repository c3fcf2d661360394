"""Sends messages."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from typing_extensions import Unpack

from kourou import settings
from kourou.client import Client, ClientOptions
from kourou.course import Course, tries
from kourou.errors import KourouError, PartialFailure
from kourou.message import Message, SendResult, to_protobuf
from kourou.message_id import new_message_id
from kourou.outbox import MAX_PARCEL_BYTES, MAX_PARCEL_COUNT, Outbox, Parcel
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp

PRODUCER_GROUP_HEADER = "x-kourou-producer-group"
SEND_TIMEOUT_S = 5.0
"""Over all tries of a message: a broker that restarts after a crash is back within it."""
_TRIES_IN_TIMEOUT = 3
"""A try may take this part of it: one, the same broker again while the outcome is unknown, then another broker."""

_PARCELS_AT_A_TIME = 16
"""Of one send_many: enough to keep several brokers busy, few enough that none waits long for its turn to leave."""


class AsyncProducer:
    """Sends messages, on one event loop; any number of tasks may share it.

    What is sent while requests to the same broker are under way shares the next one, so tasks that send at the same
    time are served in batches without a delay for any of them. A message may be stored twice when a broker breaks
    before its answer and the retry goes to another one; its message id is the same both times.
    """

    def __init__(
        self,
        namesrv: str | Sequence[str] | None = None,
        *,
        group: str | None = None,
        send_timeout_s: float = SEND_TIMEOUT_S,
        **options: Unpack[ClientOptions],
    ) -> None:
        """`namesrv`: "host:port" of one or several NameServers; else from KOUROU_NAMESRV, else the local cluster.
        `group`: the producer group, under which the admin service lists this producer."""
        headers = [(PRODUCER_GROUP_HEADER, group)] if group else []
        self._client = Client(namesrv, self._settings, group=group, options=options, headers=headers)
        self._outbox = Outbox(self._client.wire)
        self._send_timeout_s = send_timeout_s
        self._turns: dict[str, int] = {}

    @property
    def client_id(self) -> str:
        return self._client.wire.client_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, message: Message, *, timeout_s: float | None = None) -> SendResult:
        """Returns when the broker has stored the message. Raises TopicNotFound, TimeoutExceeded and their kin."""
        return (await self._deliver(message.topic, [message], timeout_s))[0]

    async def send_many(self, messages: Sequence[Message], *, timeout_s: float | None = None) -> list[SendResult]:
        """The results in the order of the messages, which may be of several topics. They travel in requests of up to
        128 messages, and the time-out is that of each request. Raises PartialFailure when only some were stored, and
        the first error itself when none was."""
        shares = list(_shares(messages))
        turns = asyncio.Semaphore(_PARCELS_AT_A_TIME)

        async def attempt(share: list[int]) -> list[SendResult] | KourouError:
            async with turns:
                return await self._attempt([messages[index] for index in share], timeout_s)

        results = await asyncio.gather(*map(attempt, shares))
        failures = [result for result in results if isinstance(result, KourouError)]
        if failures and len(failures) == len(results):
            raise failures[0]
        outcomes: dict[int, SendResult | KourouError] = {}
        for share, result in zip(shares, results, strict=True):
            outcomes.update(
                zip(share, [result] * len(share) if isinstance(result, KourouError) else result, strict=True)
            )
        if failures:
            raise PartialFailure("sending", [outcomes[index] for index in range(len(messages))])
        return [outcome for _, outcome in sorted(outcomes.items()) if isinstance(outcome, SendResult)]

    async def close(self) -> None:
        """What is still being sent ends with ClosedError, and may be stored or not."""
        await self._client.close()
        await self._outbox.close()

    def _settings(self) -> v2.Settings:
        return settings.publishing(self._turns)

    async def _attempt(self, messages: Sequence[Message], timeout_s: float | None) -> list[SendResult] | KourouError:
        try:
            return await self._deliver(messages[0].topic, messages, timeout_s)
        except KourouError as error:
            return error

    async def _deliver(self, topic: str, messages: Sequence[Message], timeout_s: float | None) -> list[SendResult]:
        timeout_s = self._send_timeout_s if timeout_s is None else timeout_s
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        encoded = _encoded(messages)
        course = Course(topic, self._next_turn(topic))
        try_s = timeout_s / _TRIES_IN_TIMEOUT
        with self._client.in_use():
            try:
                async with asyncio.timeout_at(deadline_s):
                    try:
                        return await self._try(course, encoded, try_s)
                    except KourouError as error:
                        return await self._try_again(course, encoded, try_s, deadline_s, error)
            except KourouError as error:
                raise course.verdict(error) from error.__cause__
            except TimeoutError:
                raise course.too_late() from None

    async def _try_again(
        self, course: Course, messages: list[v2.Message], try_s: float, deadline_s: float, first_error: KourouError
    ) -> list[SendResult]:
        """Only now with tenacity, whose machinery costs more than a send that succeeds: it is told the first error."""
        async for attempt in tries(course, self._client.session.broker_settings.retry, deadline_s):
            with attempt:
                if attempt.retry_state.attempt_number == 1:
                    raise first_error
                return await self._try(course, messages, try_s)
        raise AssertionError("the tries end with a result or an error")

    async def _try(self, course: Course, messages: list[v2.Message], timeout_s: float) -> list[SendResult]:
        self._client.check_open()  # a send that fails because of `close` is not tried again
        route = await self._client.routes.get(course.topic)
        queue = course.next_queue(route)
        try:
            return await self._outbox.send(Parcel(messages, queue, timeout_s))
        except KourouError as error:
            course.failed(error, route)
            self._client.routes.pull_soon(course.topic)
            raise

    def _next_turn(self, topic: str) -> int:
        turn = self._turns.get(topic)
        if turn is None:
            # At random first: producers that start together do not meet at the same queue.
            turn = random.randrange(1 << 16)
            self._client.session.announce_soon()
        self._turns[topic] = turn + 1
        return turn


def _encoded(messages: Sequence[Message]) -> list[v2.Message]:
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    born = Timestamp(seconds=seconds, nanos=nanos)
    return [to_protobuf(message, new_message_id(), born) for message in messages]


def _shares(messages: Sequence[Message]) -> Iterator[list[int]]:
    """The messages by index, cut into parcels: each of one topic and within the limits."""
    open_shares: dict[str, list[int]] = defaultdict(list)
    sizes_bytes: dict[str, int] = defaultdict(int)
    for index, message in enumerate(messages):
        share = open_shares[message.topic]
        sizes_bytes[message.topic] += len(message.body)
        if share and (len(share) == MAX_PARCEL_COUNT or sizes_bytes[message.topic] > MAX_PARCEL_BYTES):
            yield share
            open_shares[message.topic] = share = []
            sizes_bytes[message.topic] = len(message.body)
        share.append(index)
    yield from open_shares.values()
