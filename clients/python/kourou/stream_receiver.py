"""Receiving when asked by the stream door: a credit for each call, and what its caller did not wait for is kept for the
next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from kourou.client import Client
from kourou.consume_stream import ConsumeStream, Terms
from kourou.errors import ClosedError, ConnectionFailed, TimeoutExceeded
from kourou.leases import Lent
from kourou.received import ReceivedMessage
from kourou.settling import Asked
from kourou.wire import REQUEST_TIMEOUT_S

_MAX_CREDITS = 32
"""Outstanding; further calls share them."""

_Credit = tuple[int, int]
"""Of which connection, and which of its credits it is, from 1."""


class StreamReceiver:
    """Of one topic at one broker."""

    def __init__(self, client: Client, group: str, topic: str, broker: str, terms: Terms) -> None:
        self._consume = ConsumeStream(
            client, group, topic, broker, terms, on_messages=self._take, on_open=self._opened, on_end=self._ended
        )
        self._loop = asyncio.get_running_loop()
        self._kept: deque[ReceivedMessage] = deque()
        self._gathered: list[ReceivedMessage] = []
        """Of the credit that is being served."""
        self._receiving = 0
        self._connection = self._granted = self._served = 0
        self._answers_due_s: deque[float] = deque()
        """Of the credits that are not served yet."""
        self._error: Exception | None = None
        self._news: list[asyncio.Future[None]] = []
        self._consume.start()

    async def receive(self, terms: Terms, max_messages: int, wait_s: float) -> list[ReceivedMessage]:
        """Empty when nothing came within the waiting time. Calls with other terms wait for each other. Raises
        NoSuchDoor."""
        deadline_s = self._loop.time() + wait_s
        async with self._on(terms):
            credit: _Credit | None = None
            while True:
                if messages := self._take_kept(max_messages):
                    return messages
                if not self._consume.is_open:
                    await self._open()
                    continue
                left_s = deadline_s - self._loop.time()
                if credit is not None and credit[0] != self._connection:
                    credit = None  # lost with the stream
                elif credit is not None and credit[1] <= self._served:
                    credit = None
                    if left_s <= 0:
                        return []
                if credit is None:
                    # One whose caller gave up brings messages for this call too.
                    if self._granted - self._served < min(self._receiving, _MAX_CREDITS):
                        credit = self._grant(max_messages, max(0.0, left_s))
                    elif left_s <= 0:
                        return []
                # The end of a credit is by the broker's clock.
                grace_s = 0.0 if credit is None else REQUEST_TIMEOUT_S
                if not await self._hears(left_s + grace_s) and credit is not None:
                    self._consume.reopen(terms)
                    raise TimeoutExceeded(f"{self._consume.address} did not answer a credit in time")

    @property
    def is_idle(self) -> bool:
        """Nobody receives, and nothing is left to be settled."""
        return not self._receiving and not self._consume.leases.held(self._loop.time())

    async def close(self) -> None:
        await self._consume.close()
        self._ended(ClosedError("the client was closed meanwhile"))

    def _grant(self, max_messages: int, wait_s: float) -> _Credit:
        self._granted += 1
        self._answers_due_s.append(self._loop.time() + wait_s + REQUEST_TIMEOUT_S)
        self._consume.grant(max_messages, wait_s=wait_s)
        return self._connection, self._granted

    def _take_kept(self, max_messages: int) -> list[ReceivedMessage]:
        messages: list[ReceivedMessage] = []
        now_s = self._loop.time()
        while self._kept and len(messages) < max_messages:
            message = self._kept.popleft()
            if message.lent is not None and message.lent.ends_s > now_s:
                messages.append(message)
        return messages

    @asynccontextmanager
    async def _on(self, terms: Terms) -> AsyncGenerator[None, None]:
        while terms != self._consume.terms:
            if not self._receiving:
                self._error = None
                self._consume.reopen(terms)
                break
            await self._hears(REQUEST_TIMEOUT_S)
        self._receiving += 1
        try:
            yield
        finally:
            self._receiving -= 1
            self._tell()

    async def _open(self) -> None:
        """Returns when there may be an open stream. Raises why there is none."""
        if self._error is None and await self._hears(REQUEST_TIMEOUT_S):
            return
        error = self._error or ConnectionFailed(f"{self._consume.broker} did not open a stream in time")
        raise error

    async def _hears(self, timeout_s: float) -> bool:
        """Whether there was news in that time."""
        news: asyncio.Future[None] = self._loop.create_future()
        self._news.append(news)
        done, _ = await asyncio.wait([news], timeout=max(0.0, timeout_s))
        return bool(done)

    def _tell(self) -> None:
        news, self._news = self._news, []
        for each in news:
            if not each.done():
                each.set_result(None)

    def _take(self, messages: list[ReceivedMessage], is_last: bool) -> None:
        if self._loop.time() > self._answers_due_s[0]:
            # Others may have these messages by now: they were on their way for longer than anybody waits.
            for lent in (message.lent for message in messages if message.lent is not None):
                self._consume.leases.settled(lent, 1)
            self._consume.reopen(self._consume.terms)
            return
        self._gathered += messages
        if is_last:
            self._served += 1
            self._answers_due_s.popleft()
            self._kept += self._gathered
            self._gathered = []
            self._tell()

    def _opened(self) -> None:
        self._connection += 1
        self._granted = self._served = 0
        self._answers_due_s.clear()
        self._error = None
        self._tell()

    def _ended(self, error: Exception | None) -> None:
        self._error = error
        self._kept += self._gathered
        self._gathered = []
        self._tell()


async def settle(lent: Lent, offsets: list[int], after_s: float | None = None) -> Lent:
    """Acknowledged, or to come again after that time, and then what holds them by now. Raises what it came to."""
    asked = Asked(lent, offsets, after_s=after_s, patient=False)
    done = lent.settling.settle(asked)
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            error = await asyncio.shield(done)
    except TimeoutError:
        raise TimeoutExceeded("the broker did not settle it in time") from None
    if error is not None:
        raise error
    return lent.settling.lent_anew(asked)
