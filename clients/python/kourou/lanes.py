"""A producer's messages on their way: a lane for each kind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from kourou.client import Client
from kourou.errors import ClosedError
from kourou.frame import Kind, kind_of
from kourou.lane import Lane
from kourou.memory import Memory
from kourou.message import Message, MessageType
from kourou.outbox import Outbox


class Lanes:
    def __init__(self, client: Client, outbox: Outbox, memory: Memory, on_topic: Callable[[str], None]) -> None:
        """`on_topic`: called with the topic of a new lane."""
        self._client = client
        self._outbox = outbox
        self._memory = memory
        self._on_topic = on_topic
        self._lanes: dict[Kind, Lane] = {}
        self._normal: dict[str, Lane] = {}
        """Those of ordinary messages by topic: they are many."""
        self._closed = False

    def for_message(self, message: Message) -> Lane:
        """Raises ClosedError."""
        if message.type is MessageType.NORMAL:
            lane = self._normal.get(message.topic)
            if lane is not None and not self._closed:
                return lane
            lane = self._normal[message.topic] = self.for_kind(kind_of(message))
            return lane
        return self.for_kind(kind_of(message))

    def for_kind(self, kind: Kind) -> Lane:
        """Raises ClosedError."""
        if self._closed:
            raise ClosedError("the client was closed")
        lane = self._lanes.get(kind)
        if lane is None:
            self._on_topic(kind.topic)
            # There may be many message groups: their lanes go when they are empty.
            on_idle = partial(self._lanes.pop, kind, None) if kind.of is not None else _stay
            lane = self._lanes[kind] = Lane(kind, self._client, self._outbox, self._memory, on_idle)
        return lane

    async def close(self) -> None:
        """Everything that waits or is under way ends with ClosedError."""
        self._closed = True
        self._memory.close()
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))
        await self._outbox.close()


def _stay() -> None:
    """A lane that is kept."""
