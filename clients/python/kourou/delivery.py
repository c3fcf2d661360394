"""Getting a frame to a broker: as many tries as it takes, and as the time allows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kourou.client import Client
from kourou.course import tries
from kourou.errors import KourouError
from kourou.frame import Frame
from kourou.outbox import Outbox
from kourou.results import Outcome
from kourou.route import Queue

_TRIES_IN_TIMEOUT = 3
"""A try may take this part of it: one, the same broker again while the outcome is unknown, then another broker."""


class Delivery:
    def __init__(self, client: Client, outbox: Outbox) -> None:
        self._client = client
        self._outbox = outbox

    async def deliver(self, frame: Frame, queue: Queue | None) -> Sequence[Outcome]:
        """What became of each message. `queue`: where the first try goes, if the frame's course has chosen it already.
        Raises what the last try came to, TimeoutExceeded if they may be stored."""
        course = frame.course
        try_s = frame.timeout_s / _TRIES_IN_TIMEOUT
        try:
            async with asyncio.timeout_at(frame.deadline_s):
                try:
                    return await self._try(frame, queue, try_s)
                except KourouError as error:
                    return await self._try_again(frame, try_s, error)
        except KourouError as error:
            raise course.verdict(error) from error.__cause__
        except TimeoutError:
            raise course.too_late() from None

    async def _try_again(self, frame: Frame, try_s: float, first_error: KourouError) -> Sequence[Outcome]:
        """Only now with tenacity, whose machinery costs more than a send that succeeds: it is told the first error."""
        async for attempt in tries(frame.course, self._client.session.broker_settings.retry, frame.deadline_s):
            with attempt:
                if attempt.retry_state.attempt_number == 1:
                    raise first_error
                return await self._try(frame, None, try_s)
        raise AssertionError("the tries end with a result or an error")

    async def _try(self, frame: Frame, queue: Queue | None, timeout_s: float) -> Sequence[Outcome]:
        self._client.check_open()  # a send that fails because of `close` is not tried again
        route = await self._client.routes.get(frame.kind.topic)
        if queue is None:
            queue = frame.course.next_queue(route)
        frame.address = queue.address
        try:
            return await self._outbox.send(frame, queue, timeout_s)
        except KourouError as error:
            frame.course.failed(error, route)
            self._client.routes.pull_soon(frame.kind.topic)
            raise
