"""Messages that are consumed in order: of one message group (or lite topic) one after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from kourou.listening import Listening
from kourou.received import ReceivedMessage
from kourou.settings import BrokerSettings
from kourou.settlement import Settler


class InOrder:
    """The next message of a group goes to the listener when the one before is settled. One that the listener fails on
    is repeated here, as what follows it may be here already: after each wait of the policy, until its last attempt,
    then it is given up as a dead letter. Groups do not wait for each other."""

    def __init__(self, listening: Listening, settler: Settler, prescribed: Callable[[], BrokerSettings]) -> None:
        self._listening = listening
        self._settler = settler
        self._prescribed = prescribed
        self._waiting: dict[tuple[str, str], deque[ReceivedMessage]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()

    def put(self, group: str, message: ReceivedMessage) -> None:
        """Which counts as cached; it is released when it is settled."""
        key = message.topic, group
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(message)
            return
        self._waiting[key] = deque([message])
        task = asyncio.create_task(self._work(key), name=f"kourou {message.topic} {group}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Nothing more goes to the listener; what it has is settled once it is done. The rest goes to others."""
        self._closed.set()

    async def _work(self, key: tuple[str, str]) -> None:
        waiting = self._waiting[key]
        while waiting and not self._closed.is_set():
            message = waiting.popleft()
            try:
                await self._consume(message)
            finally:
                self._listening.cache.release(1, message.size_bytes)
        del self._waiting[key]

    async def _consume(self, message: ReceivedMessage) -> None:
        while not await self._listening.hear([message]):
            prescribed = self._prescribed()
            if message.attempt >= prescribed.max_attempts:
                return await self._settler.give_up(message, prescribed.max_attempts)
            with suppress(TimeoutError):
                async with asyncio.timeout(prescribed.retry.delay_s(message.attempt)):
                    await self._closed.wait()
                    return None
            message.attempt += 1
        return await self._settler.acknowledge(message)
