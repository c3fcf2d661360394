"""What leaves by a stream that is answered in both its directions at once: a queue with one task that sends."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from kourou_service.engine import StreamCall

_MAX_WAITING_BYTES = 1024 * 1024


class Answers:
    """Whoever answers does not wait; how much may gather here is bounded by what clients may have unanswered."""

    def __init__(self, call: StreamCall) -> None:
        self._call = call
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._taken = asyncio.Event()
        self._woken = asyncio.Event()
        self._ended = False

    def put(self, answer: bytes) -> None:
        self._waiting.append(answer)
        self._waiting_bytes += len(answer)
        self._woken.set()

    async def room(self) -> None:
        """Returns when little waits: for who has much to say, and does not want it to pile up for a slow client."""
        while self._waiting_bytes > _MAX_WAITING_BYTES:
            self._taken.clear()
            await self._taken.wait()

    def end(self) -> None:
        """No more comes."""
        self._ended = True
        self._woken.set()

    async def send(self) -> None:
        """Returns when all has left and no more comes. Raises CancelledError when the client is gone."""
        while True:
            while self._waiting:
                answer = self._waiting.popleft()
                await self._call.send(answer)
                self._waiting_bytes -= len(answer)
                self._taken.set()
            if self._ended:
                await self._call.flush()
                return
            self._woken.clear()
            await self._woken.wait()


@asynccontextmanager
async def answering(call: StreamCall) -> AsyncGenerator[Answers]:
    """What was put there has left when the block ends well."""
    answers = Answers(call)
    sending = asyncio.create_task(answers.send())
    try:
        yield answers
        answers.end()
        await sending
    finally:
        sending.cancel()
