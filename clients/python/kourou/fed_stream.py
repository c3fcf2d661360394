"""A Consume stream and its credits: so many messages are asked for as the listener can use soon."""

from __future__ import annotations

import asyncio

from kourou.client import Client
from kourou.consume_stream import ConsumeStream, Terms
from kourou.consumption import Consumption
from kourou.doors import NoSuchDoor
from kourou.listening import Listening
from kourou.received import ReceivedMessage

_CREDITS = 2
"""Outstanding at a time: while one is being served, the next one is there already."""
_CACHE_SHARES = 4
"""A credit is at most such a part of the cache."""
_FIRST_COUNT = 256
_LEAST_COUNT = 16
_SLOW_S = 0.5
MAX_UNSETTLED_COUNT = 16_384
"""With more, there is no further credit."""


class FedStream:
    """A listener that has nothing left when messages come gets twice as many with the next credit, so that a fast one
    has whole batches; one that takes long with what is there gets half as many: they go to other members."""

    def __init__(
        self,
        client: Client,
        group: str,
        topic: str,
        broker: str,
        terms: Terms,
        listening: Listening,
        consumption: Consumption,
    ) -> None:
        self.is_stopped = False
        """What still comes goes to others when the client says goodbye."""
        self.opened: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        """How the first connection began."""
        self._client = client
        self._cache = listening.cache
        self._consumption = consumption
        self._most_count = max(1, self._cache.max_count // _CACHE_SHARES)
        self._credit_bytes = max(1, self._cache.max_bytes // _CACHE_SHARES)
        self._credit_count = min(_FIRST_COUNT, self._most_count)
        self._outstanding = 0
        self._hunger = asyncio.Event()
        self.consume = ConsumeStream(
            client,
            group,
            topic,
            broker,
            terms,
            on_messages=self._take,
            on_open=self._begin,
            on_end=self._ended,
        )
        self.consume.start()
        self.feeding = asyncio.create_task(self._feed(), name=f"kourou credits {topic} of {broker}")

    def _begin(self) -> None:
        # Answered at once, which shows that the broker has taken us.
        self._outstanding = 1
        self.consume.grant(self._credit_count, self._credit_bytes, wait_s=0.0)
        self._hunger.set()

    def _take(self, messages: list[ReceivedMessage], is_last: bool) -> None:
        if not self.opened.done():
            self.opened.set_result(None)
        if messages and not self.is_stopped:
            if not self._cache.count and len(messages) >= self._credit_count:
                self._credit_count = min(self._credit_count * 2, self._most_count)
            self._consumption.take(messages)
        if is_last:
            self._outstanding -= 1
            self._hunger.set()

    def _ended(self, error: Exception | None) -> None:
        self._outstanding = 0
        if isinstance(error, NoSuchDoor):
            self._client.doors.lack_stream(self.consume.address)
        if not self.opened.done():
            self.opened.set_result(error)

    async def _feed(self) -> None:
        while True:
            self._hunger.clear()
            if not self.consume.is_open or self._outstanding >= _CREDITS:
                await self._hunger.wait()
                continue
            await self._room()
            if self.consume.is_open and self._outstanding < _CREDITS:
                self._outstanding += 1
                self.consume.grant(self._credit_count, self._credit_bytes)

    async def _room(self) -> None:
        """Returns when the listener has less than a credit's messages before it."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await self._cache.wait(self._credit_count)
        while loop.time() - began_s > _SLOW_S and self._credit_count > _LEAST_COUNT:
            self._credit_count = max(_LEAST_COUNT, self._credit_count // 2)
            began_s += _SLOW_S
            await self._cache.wait(self._credit_count)
        await self.consume.settling.room(MAX_UNSETTLED_COUNT)
