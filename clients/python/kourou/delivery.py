"""Getting messages to a broker: as many tries as it takes, and as the time allows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kourou.client import Client
from kourou.course import Course, tries
from kourou.errors import KourouError
from kourou.message import SendResult
from kourou.outbox import Outbox, Parcel, Sort
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2

_TRIES_IN_TIMEOUT = 3
"""A try may take this part of it: one, the same broker again while the outcome is unknown, then another broker."""


class Delivery:
    """Of a producer's messages, each request on its own course."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._outbox = Outbox(client.wire)

    async def deliver(
        self, course: Course, messages: Sequence[v2.Message], timeout_s: float, sort: Sort | None
    ) -> list[SendResult]:
        """All are stored, or none is. Raises what the last try came to, TimeoutExceeded if it may be stored."""
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        try_s = timeout_s / _TRIES_IN_TIMEOUT
        with self._client.in_use():
            try:
                async with asyncio.timeout_at(deadline_s):
                    try:
                        return await self._try(course, messages, try_s, sort)
                    except KourouError as error:
                        return await self._try_again(course, messages, try_s, sort, deadline_s, error)
            except KourouError as error:
                raise course.verdict(error) from error.__cause__
            except TimeoutError:
                raise course.too_late() from None

    async def close(self) -> None:
        await self._outbox.close()

    async def _try_again(
        self,
        course: Course,
        messages: Sequence[v2.Message],
        try_s: float,
        sort: Sort | None,
        deadline_s: float,
        first_error: KourouError,
    ) -> list[SendResult]:
        """Only now with tenacity, whose machinery costs more than a send that succeeds: it is told the first error."""
        async for attempt in tries(course, self._client.session.broker_settings.retry, deadline_s):
            with attempt:
                if attempt.retry_state.attempt_number == 1:
                    raise first_error
                return await self._try(course, messages, try_s, sort)
        raise AssertionError("the tries end with a result or an error")

    async def _try(
        self, course: Course, messages: Sequence[v2.Message], timeout_s: float, sort: Sort | None
    ) -> list[SendResult]:
        self._client.check_open()  # a send that fails because of `close` is not tried again
        route = await self._client.routes.get(course.topic)
        queue = course.next_queue(route)
        try:
            return await self._outbox.send(Parcel(messages, queue, timeout_s, sort))
        except KourouError as error:
            course.failed(error, route)
            self._client.routes.pull_soon(course.topic)
            raise
