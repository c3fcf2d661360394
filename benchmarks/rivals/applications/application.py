"""What an application can do, whichever system is under it."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

Acked = Callable[[int], None]
"""Is told how many more messages the server has acknowledged."""
Came = Callable[[Sequence[bytes]], bool]
"""Is given the bodies that came, before their acknowledgement; True: no more are wanted. Libraries that block call it
with none now and then."""


class Publisher(ABC):
    @abstractmethod
    async def publish(self, batches: AsyncIterator[Sequence[bytes]], acked: Acked) -> None:
        """Publishes what comes without waiting for each, and returns when all is acknowledged."""

    @abstractmethod
    async def publish_one(self, body: bytes) -> None:
        """Returns when it is acknowledged."""


class Consumer(ABC):
    attentive_after_s = 0.0
    """How long after its start it has asked for messages, if its library does not tell."""

    @abstractmethod
    async def consume(self, came: Came) -> None:
        """Receives and acknowledges until no more are wanted."""


class Application(ABC):
    def __init__(self, address: str, door: str) -> None:
        self.address = address
        self.door = door

    async def create_topics(self, names: Sequence[str]) -> None:
        """Nothing where an administrator does it."""
        return

    @abstractmethod
    def publisher(self, topic: str, *, prompt: bool) -> AbstractAsyncContextManager[Publisher]:
        """`prompt`: single messages that shall not wait for others to share a request with."""

    @abstractmethod
    def consumer(self, topic: str, group: str, *, prompt: bool) -> AbstractAsyncContextManager[Consumer]:
        """Begins at the first message, or where the group is; it is ready when it is entered."""


async def some_at_a_time(
    batches: AsyncIterator[Sequence[bytes]],
    publish: Callable[[Sequence[bytes]], Coroutine[Any, Any, None]],
    acked: Acked,
    *,
    in_flight: int,
) -> None:
    """Keeps so many batches under way. The first that fails ends it."""
    room = asyncio.Semaphore(in_flight)

    async def one(batch: Sequence[bytes]) -> None:
        try:
            await publish(batch)
        finally:
            room.release()
        acked(len(batch))

    async with asyncio.TaskGroup() as tasks:
        async for batch in batches:
            await room.acquire()
            tasks.create_task(one(batch))
