"""What a push consumer does with messages, whichever door they came through: the listener hears them, and they are
settled by what it says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from kourou.in_order import InOrder
from kourou.leases import Lent
from kourou.listening import Listening
from kourou.received import ReceivedMessage
from kourou.settings import BrokerSettings
from kourou.settlement import Settler

_log = logging.getLogger(__name__)

_SETTLING_TIMEOUT_S = 3.0
_MAX_POLLED_COUNT = 1024
"""A poll cannot tell how fast the listener is: with so many before it, none is made."""


class Consumption:
    def __init__(self, listening: Listening, settler: Settler, prescribed: Callable[[], BrokerSettings]) -> None:
        self._listening = listening
        self._settler = settler
        self._prescribed = prescribed
        self._in_order = InOrder(listening, settler, prescribed)

    async def room(self, address: str) -> None:
        """Returns when there is room for another poll's messages, and the broker there may give more to settle."""
        await self._settler.room(address)
        await self._listening.cache.wait(_MAX_POLLED_COUNT)

    def take(self, messages: list[ReceivedMessage]) -> None:
        """Messages that came together."""
        self._listening.cache.take(len(messages), _size(messages))
        if self._prescribed().fifo:
            messages = self._take_in_order(messages)
        for portion in self._listening.portions(messages) if messages else ():
            self._listening.put(portion, self._heard)

    def close(self) -> None:
        """Nothing more goes to the listener in order; what it has is settled once it is done."""
        self._in_order.close()

    async def settle(self) -> None:
        """What the listener is done with, within a time-out."""
        try:
            async with asyncio.timeout(_SETTLING_TIMEOUT_S):
                await self._settler.drain()
        except TimeoutError:
            _log.warning("not everything that was consumed could be settled; it will come again")
        await self._settler.close()

    def _take_in_order(self, messages: list[ReceivedMessage]) -> list[ReceivedMessage]:
        """Those that are not of a message group remain."""
        others: list[ReceivedMessage] = []
        for message in messages:
            group = message.message_group or message.lite_topic
            if group is None:
                others.append(message)
            else:
                self._in_order.put(group, message)
        return others

    def _heard(self, messages: Sequence[ReceivedMessage], settled: bool | None) -> None:
        # Not only when they are settled: a broker that is down must not fill the cache for the others.
        self._listening.cache.release(len(messages), _size(messages))
        if settled:
            self._acknowledge(messages)
        elif settled is not None:
            retry = self._prescribed().retry
            for message in messages:
                self._settler.give_back(message, retry.delay_s(message.attempt))

    def _acknowledge(self, messages: Sequence[ReceivedMessage]) -> None:
        lent: Lent | None = messages[0].lent
        if len(messages) > 1 and lent is not None and messages[-1].lent is lent:
            # A delivery is of one lease.
            lent.settling.acknowledge_all(lent, [message.offset for message in messages])
            return
        for message in messages:
            self._settler.acknowledge(message)


def _size(messages: Sequence[ReceivedMessage]) -> int:
    return sum(message.size_bytes for message in messages)
