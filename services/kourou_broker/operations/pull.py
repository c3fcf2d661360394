"""Reading a queue by offset, without leases: for consumers that keep their progress themselves."""

import asyncio
from typing import NamedTuple

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations.filters import Filter
from kourou_broker.operations.matching import MatchingReader
from kourou_broker.operations.section_reader import SectionReader, StoredMessage
from kourou_broker.operations.traffic import Traffic
from kourou_broker.state.definitions import Group, Queue
from kourou_service.refusal import Refused


class Pulled(NamedTuple):
    messages: list[StoredMessage]
    next_offset: int
    waited: bool
    """There was nothing at first."""


class Pulling:
    def __init__(self, reader: SectionReader, traffic: Traffic) -> None:
        self._reader = reader
        self._traffic = traffic
        self._waiting: dict[int, set[asyncio.Future[None]]] = {}
        self._closed = False
        self.parked_polls = 0

    async def pull(
        self, group: Group, queue: Queue, offset: int, batch_size: int, filter_: Filter, wait_s: float
    ) -> Pulled:
        """Up to batch_size messages from offset on; none when nothing matched within wait_s. Raises Refused."""
        if not queue.first_offset <= offset <= queue.next_offset:
            raise Refused(
                definition_pb2.ILLEGAL_OFFSET,
                f"offset {offset} is outside of what the queue holds: {queue.first_offset} to {queue.next_offset}",
            )
        reader = MatchingReader(self._reader)
        loop = asyncio.get_running_loop()
        ends = loop.time() + wait_s
        waited = False
        while True:
            pulled = await reader.read(queue, offset, filter_, batch_size)
            if pulled.messages or self._closed or loop.time() >= ends:
                self._count(group, queue, pulled.messages)
                return Pulled(pulled.messages, pulled.next_offset, waited)
            offset = pulled.next_offset
            waited = True
            await self._wait(queue, ends - loop.time())

    def close(self) -> None:
        """Ends all that wait: the broker stops."""
        self._closed = True
        for topic_id in list(self._waiting):
            self.on_messages(topic_id)

    def on_messages(self, topic_id: int) -> None:
        """New messages of the topic can be read."""
        for waiter in self._waiting.pop(topic_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _count(self, group: Group, queue: Queue, messages: list[StoredMessage]) -> None:
        self._traffic.delivered += len(messages)
        traffic = self._traffic.of_group(group.id, queue.topic.id)
        traffic.delivered += len(messages)
        traffic.size_bytes += sum(len(message.head) + len(message.tail) for message in messages)

    async def _wait(self, queue: Queue, wait_s: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiting.setdefault(queue.topic.id, set())
        waiters.add(waiter)
        self.parked_polls += 1
        try:
            await asyncio.wait_for(waiter, wait_s)
        except TimeoutError:
            pass
        finally:
            self.parked_polls -= 1
            waiters.discard(waiter)
