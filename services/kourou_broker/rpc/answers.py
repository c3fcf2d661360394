"""What leaves by a stream that is answered in both its directions at once: a queue with one task that sends."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from kourou_service.engine import StreamCall


class Answers:
    """Whoever answers does not wait; how much may gather here is bounded by what clients may have unanswered."""

    def __init__(self, call: StreamCall) -> None:
        self._call = call
        self._waiting: deque[bytes] = deque()
        self._woken = asyncio.Event()
        self._ended = False

    def put(self, answer: bytes) -> None:
        self._waiting.append(answer)
        self._woken.set()

    def end(self) -> None:
        """No more comes."""
        self._ended = True
        self._woken.set()

    async def send(self) -> None:
        """Returns when all has left and no more comes. Raises CancelledError when the client is gone."""
        while True:
            while self._waiting:
                await self._call.send(self._waiting.popleft())
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
