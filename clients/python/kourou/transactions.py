"""Messages that are delivered if and only if something else has happened, such as a commit of a database.

The broker stores such a message first, where no consumer sees it (a half message), then the application does its part,
then the producer says what is to become of the message. If it never says, the broker asks: any producer of the topic,
by its transaction checker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum
from types import TracebackType
from typing import Self

from kourou.backoff import Exponential
from kourou.callbacks import FAULTS, Callback, is_cancelled
from kourou.client import Client
from kourou.errors import PASSING, ConnectionFailed, KourouError
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.received import ReceivedMessage
from kourou.results import SendResult

_log = logging.getLogger(__name__)

_AGAIN = Exponential(initial_s=0.1, max_s=2.0)
_CHECKS_AT_A_TIME = 8


class TransactionResolution(StrEnum):
    """What a transaction checker knows of a message's transaction."""

    COMMIT = "commit"
    """Its other part has happened: deliver it."""
    ROLLBACK = "rollback"
    """Its other part has not happened and never will: drop it."""
    UNKNOWN = "unknown"
    """It may still happen: ask again later."""


TransactionChecker = (
    Callable[[ReceivedMessage], TransactionResolution] | Callable[[ReceivedMessage], Awaitable[TransactionResolution]]
)
"""Looks up whether what belongs to the message has happened, as in the database by the message's key. An exception
counts as UNKNOWN. A coroutine function runs on the event loop, any other in a thread."""

End = Callable[[SendResult, TransactionResolution], Awaitable[None]]
_ON_WIRE = {TransactionResolution.COMMIT: v2.COMMIT, TransactionResolution.ROLLBACK: v2.ROLLBACK}


class AsyncTransaction:
    """One message and a block that belongs to it: `async with producer.transaction(message) as transaction:`.

    The block begins when the broker holds the message. When it ends, the message is committed, or dropped if the block
    said `rollback`. An exception does neither: it does not tell whether the other part has happened (a commit of a
    database may fail in its last step), so the message stays invisible until the transaction checker has told.
    """

    def __init__(self, begin: Callable[[], Awaitable[SendResult]], end: End) -> None:
        self._begin = begin
        self._end = end
        self._result: SendResult | None = None
        self._resolution = TransactionResolution.COMMIT

    @property
    def result(self) -> SendResult:
        """Of the message, within the block and after it."""
        if self._result is None:
            raise RuntimeError("a transaction begins with its block: with producer.transaction(message) as ...")
        return self._result

    def rollback(self) -> None:
        """At the end of the block the message is dropped."""
        self._resolution = TransactionResolution.ROLLBACK

    async def __aenter__(self) -> Self:
        """Raises what `send` raises; then the block does not begin."""
        if self._result is not None:
            raise RuntimeError("a transaction has one message and one block; make another with producer.transaction")
        self._result = await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises InvalidRequest when the broker has ended the transaction otherwise meanwhile. A broker that cannot be
        reached is no error: it holds the message, and asks the checker."""
        if error is None or self._resolution is TransactionResolution.ROLLBACK:
            await self._end(self.result, self._resolution)


async def end_transaction(
    client: Client, sent: SendResult, resolution: TransactionResolution, timeout_s: float
) -> None:
    """Tries for that long, then leaves it to the broker to ask. Raises a ServerError that is final."""
    request = _request(sent.topic, sent.message_id, sent.transaction_id or "", resolution, v2.SOURCE_CLIENT)
    tries = 0
    last_error: KourouError = ConnectionFailed(f"broker {sent.broker} is not in the route of {sent.topic}")
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                tries += 1
                try:
                    address = (await client.routes.get(sent.topic)).address_of_broker(sent.broker)
                    if address is not None:
                        await client.wire.call(address, service_rpc.END_TRANSACTION, request)
                        return
                except PASSING as error:
                    client.check_open()
                    last_error = error
                client.routes.pull_soon(sent.topic)
                await asyncio.sleep(_AGAIN.jittered_s(tries))
    except TimeoutError:
        text = "the %s of message %s did not reach broker %s, which will ask the transaction checker: %s"
        _log.warning(text, resolution, sent.message_id, sent.broker, last_error)


class Checks:
    """Answers brokers that ask what became of a transaction."""

    def __init__(self, client: Client, checker: TransactionChecker) -> None:
        self._client = client
        self._checker = Callback[ReceivedMessage](checker, _CHECKS_AT_A_TIME, "kourou transaction checker")
        self._turns = asyncio.Semaphore(_CHECKS_AT_A_TIME)
        self._asked: set[str] = set()

    async def check(self, command: service_pb2.TelemetryCommand, address: str) -> None:
        """The handler of the command."""
        orphan = command.recover_orphaned_transaction_command
        if orphan.transaction_id in self._asked:  # asked again while the checker is at it
            return
        self._asked.add(orphan.transaction_id)
        try:
            async with self._turns:
                await self._check(orphan, address)
        finally:
            self._asked.discard(orphan.transaction_id)

    def close(self) -> None:
        self._checker.close()

    async def _check(self, orphan: service_pb2.RecoverOrphanedTransactionCommand, address: str) -> None:
        message = ReceivedMessage(orphan.message, self._client.routes.broker_at(address), address)
        resolution = await self._resolve(message)
        if resolution is TransactionResolution.UNKNOWN:
            return  # the broker asks again
        request = _request(message.topic, message.message_id, orphan.transaction_id, resolution, v2.SOURCE_SERVER_CHECK)
        try:
            await self._client.wire.call(address, service_rpc.END_TRANSACTION, request)
        except KourouError as error:
            _log.warning("%s: what the transaction checker said was not taken: %s", message, error)

    async def _resolve(self, message: ReceivedMessage) -> TransactionResolution:
        try:
            resolution = await self._checker(message)
        except FAULTS:
            if is_cancelled():
                raise
            _log.exception("the transaction checker failed on %s, which counts as unknown", message)
            return TransactionResolution.UNKNOWN
        if isinstance(resolution, TransactionResolution):
            return resolution
        text = "the transaction checker returned %r for %s, which is no TransactionResolution and counts as unknown"
        _log.error(text, resolution, message)
        return TransactionResolution.UNKNOWN


def _request(
    topic: str,
    message_id: str,
    transaction_id: str,
    resolution: TransactionResolution,
    source: v2.TransactionSource,
) -> service_pb2.EndTransactionRequest:
    return service_pb2.EndTransactionRequest(
        topic=v2.Resource(name=topic),
        message_id=message_id,
        transaction_id=transaction_id,
        resolution=_ON_WIRE[resolution],
        source=source,
    )
