"""What waits to leave by a stream: who has much to say waits for a client that reads slowly."""

import asyncio
from typing import cast

from kourou_broker.rpc.answers import answering
from kourou_service.engine import StreamCall

MIB = 1024 * 1024


class _SlowClient:
    """Takes a message whenever it is let."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self._places = asyncio.Semaphore(0)

    def read(self) -> None:
        self._places.release()

    async def send(self, response: bytes) -> None:
        await self._places.acquire()
        self.taken.append(response)

    async def flush(self) -> None:
        pass


async def test_there_is_room_again_when_the_client_has_read() -> None:
    client = _SlowClient()
    async with answering(cast("StreamCall", client)) as answers:
        await answers.room()
        for _ in range(3):
            answers.put(bytes(MIB))
        room = asyncio.ensure_future(answers.room())
        for left in (2, 1):
            await asyncio.sleep(0.01)
            assert not room.done(), left
            client.read()
        await room
        client.read()
    assert len(client.taken) == 3
