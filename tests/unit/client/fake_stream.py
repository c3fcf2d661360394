"""Brokers that have the stream door too, as simple as can be, whose answers a test can script."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from kourou.batch import Columns
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.stream.v1 import stream_pb2, stream_rpc
from tests.unit.client.fake import OK, Broker, Cluster, NameServer, Server

PublishScript = Callable[[stream_pb2.PublishRequest, Any], Awaitable[stream_pb2.PublishResponse | None]]


@dataclass
class Batch:
    base_offset: int
    headers: bytes
    bodies: bytes
    count: int
    attempt: int = 1
    indexes: list[int] = field(default_factory=list)


class StreamBroker(Broker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.window_bytes = 64 * 1024 * 1024
        self.requests: list[stream_pb2.PublishRequest] = []
        self.publish_scripts: deque[PublishScript] = deque()
        self.publish_gate = asyncio.Event()
        self.publish_gate.set()
        self.publishing: list[Any] = []
        """The contexts of the streams that are open."""
        self.known_ids: set[str] = set()
        self.bodies: dict[str, list[bytes]] = defaultdict(list)
        """Of what was published, by topic."""
        self.batches: dict[str, deque[Batch | stream_pb2.Delivery]] = defaultdict(deque)
        """What is to be delivered, by topic."""
        self.opens: list[stream_pb2.Open] = []
        self.credits: list[stream_pb2.Credit] = []
        self.settles: list[stream_pb2.Settle] = []
        self.settle_gate = asyncio.Event()
        self.settle_gate.set()
        self.settle_statuses: deque[v2.Status] = deque()
        """Of the next settlements, in place of OK."""
        self.refusal: v2.Status | None = None
        self.consuming: list[Any] = []
        self.lent: dict[int, tuple[str, Batch | stream_pb2.Delivery]] = {}
        """By number of the lease, until it is settled as a whole."""
        self.settled_offsets: dict[str, list[int]] = defaultdict(list)
        """By outcome: acknowledged, again_after, dead_letter."""
        self._numbers = itertools.count(1)
        self._news = asyncio.Condition()
        self.serve(stream_rpc.PUBLISH, self._publish)
        self.serve(stream_rpc.CONSUME, self._consume)

    # Publishing.

    async def _publish(self, requests: AsyncIterator[stream_pb2.PublishRequest], context: Any) -> None:
        self.note(context)
        self.publishing.append(context)
        answering: set[asyncio.Task[None]] = set()
        writing = asyncio.Lock()

        async def answer(request: stream_pb2.PublishRequest, script: PublishScript | None) -> None:
            response = await script(request, context) if script else None
            if response is None:
                await self.publish_gate.wait()
                response = self.publish(request)
            response.number = request.number
            async with writing:
                await context.write(response)

        try:
            await context.write(stream_pb2.PublishResponse(status=OK, window_bytes=self.window_bytes))
            async for request in requests:
                self.requests.append(request)
                script = self.publish_scripts.popleft() if self.publish_scripts else None
                task = asyncio.create_task(answer(request, script))
                answering.add(task)
                task.add_done_callback(answering.discard)
        finally:
            self.publishing.remove(context)
            for task in answering:
                task.cancel()

    def publish(self, request: stream_pb2.PublishRequest) -> stream_pb2.PublishResponse:
        columns = Columns(request.headers, request.bodies)
        topic, count = request.topic.name, len(columns)
        base = len(self.bodies[topic])
        if columns.headers.first_message_id not in self.known_ids:
            self.known_ids.add(columns.headers.first_message_id)
            self.bodies[topic] += [columns.body(index) for index in range(count)]
            self.batches[topic].append(Batch(base, request.headers, request.bodies, count))
            asyncio.create_task(self.tell_consumers())  # noqa: RUF006
        half = request.type == v2.TRANSACTION
        held = half or request.type == v2.DELAY
        place = stream_pb2.Place(queue=-1 if held else 3, offset=base, position=0x1F40 + base, index=0)
        return stream_pb2.PublishResponse(
            status=OK,
            places=[place],
            transaction_ids=[f"tx-{base + n}" for n in range(count)] if half else [],
            recall_handles=[f"recall-{base + n}" for n in range(count)] if request.type == v2.DELAY else [],
        )

    # Consuming.

    async def tell_consumers(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def deliver(self, topic: str, batch: Batch | stream_pb2.Delivery) -> None:
        self.batches[topic].append(batch)
        await self.tell_consumers()

    async def _consume(self, requests: AsyncIterator[stream_pb2.ConsumeRequest], context: Any) -> None:
        opening = (await anext(aiter(requests))).open
        self.opens.append(opening)
        self.consuming.append(context)
        writing = asyncio.Lock()
        if self.refusal is not None:
            await context.write(stream_pb2.ConsumeResponse(refused=self.refusal))
            return
        held = {lease.number for lease in opening.held}
        for number in [number for number in self.lent if number not in held]:
            topic, batch = self.lent.pop(number)
            self.batches[topic].append(batch)
        credits: asyncio.Queue[stream_pb2.Credit] = asyncio.Queue()
        tasks = [asyncio.create_task(self._serve_credits(opening.topic.name, credits, context, writing))]

        async def settle(request: stream_pb2.Settle) -> None:
            await self.settle_gate.wait()
            async with writing:
                await context.write(stream_pb2.ConsumeResponse(settled=self.settle(request)))

        try:
            async for request in requests:
                if request.HasField("credit"):
                    self.credits.append(request.credit)
                    credits.put_nowait(request.credit)
                else:
                    self.settles.append(request.settle)
                    tasks.append(asyncio.create_task(settle(request.settle)))
        finally:
            self.consuming.remove(context)
            for task in tasks:
                task.cancel()

    async def _serve_credits(
        self, topic: str, credits: asyncio.Queue[stream_pb2.Credit], context: Any, writing: asyncio.Lock
    ) -> None:
        while True:
            credit = await credits.get()
            deliveries = await self._next(topic, credit)
            deliveries = deliveries or [stream_pb2.Delivery()]
            deliveries[-1].last = True
            async with writing:
                for delivery in deliveries:
                    await context.write(stream_pb2.ConsumeResponse(delivery=delivery))

    async def _next(self, topic: str, credit: stream_pb2.Credit) -> list[stream_pb2.Delivery]:
        ready = self.batches[topic]
        wait_s = credit.wait.ToTimedelta().total_seconds() if credit.HasField("wait") else None
        try:
            async with self._news, asyncio.timeout(wait_s):
                await self._news.wait_for(lambda: ready)
        except TimeoutError:
            return []
        deliveries: list[stream_pb2.Delivery] = []
        left, size = credit.messages, credit.bytes or 1 << 40
        while ready and left > 0 and size > 0:
            batch = ready.popleft()
            if isinstance(batch, Batch) and batch.count > left and not batch.indexes:
                batch.indexes = list(range(batch.count))
            if isinstance(batch, Batch) and len(batch.indexes) > left:
                rest = Batch(batch.base_offset, batch.headers, batch.bodies, batch.count, 1, batch.indexes[left:])
                ready.appendleft(rest)
                batch = Batch(batch.base_offset, batch.headers, batch.bodies, batch.count, 1, batch.indexes[:left])
            delivery = self._lend(topic, batch)
            deliveries.append(delivery)
            left -= len(delivery.indexes) or (batch.count if isinstance(batch, Batch) else len(delivery.messages))
            size -= len(delivery.bodies) + sum(map(len, delivery.messages))
        return deliveries

    def _lend(self, topic: str, batch: Batch | stream_pb2.Delivery) -> stream_pb2.Delivery:
        number = next(self._numbers)
        self.lent[number] = topic, batch
        if isinstance(batch, Batch):
            delivery = stream_pb2.Delivery(
                attempt=batch.attempt,
                base_offset=batch.base_offset,
                stored_ms=1_700_000_000_000,
                headers=batch.headers,
                bodies=batch.bodies,
                indexes=batch.indexes,
            )
        else:
            delivery = stream_pb2.Delivery()
            delivery.CopyFrom(batch)
        delivery.lease.CopyFrom(stream_pb2.Lease(queue=3, incarnation=7, number=number))
        return delivery

    def settle(self, request: stream_pb2.Settle) -> stream_pb2.Settled:
        settled = stream_pb2.Settled(number=request.number, status=OK)
        statuses = [self.settle_statuses.popleft() if self.settle_statuses else OK for _ in request.settlements]
        for settlement, status in zip(request.settlements, statuses, strict=True):
            if status.code != v2.OK:
                continue
            outcome = settlement.WhichOneof("outcome") or ""
            number = settlement.lease.number
            ranges = [range(r.first, r.first + r.count) for r in settlement.ranges]
            offsets = list(itertools.chain(*ranges))
            self.settled_offsets[outcome] += offsets
            if number in self.lent and set(offsets) >= set(self._offsets_of(number)):
                del self.lent[number]
            if outcome == "again_after":
                settled.leases.add(queue=3, incarnation=7, number=next(self._numbers))
        if any(status.code != v2.OK for status in statuses):
            settled.results.extend(statuses)
            settled.status.code = v2.MULTIPLE_RESULTS if len(statuses) > 1 else statuses[0].code
        return settled

    def _offsets_of(self, number: int) -> list[int]:
        if number not in self.lent:
            return []
        batch = self.lent[number][1]
        if isinstance(batch, Batch):
            return [batch.base_offset + index for index in batch.indexes or range(batch.count)]
        return list(batch.offsets)


@asynccontextmanager
async def stream_cluster(brokers: int = 1) -> AsyncIterator[Cluster]:
    made = Cluster()
    made.name_servers = [NameServer(made)]
    made.brokers = [StreamBroker(f"broker-{letter}") for letter in "abcdef"[:brokers]]
    servers: list[Server] = [*made.name_servers, *made.brokers]
    try:
        for server in servers:
            await server.start()
        yield made
    finally:
        for server in servers:
            await server.stop()


def refused(code: v2.Code, message: str = "no") -> PublishScript:
    async def script(request: stream_pb2.PublishRequest, context: Any) -> stream_pb2.PublishResponse:
        return stream_pb2.PublishResponse(status=v2.Status(code=code, message=message))

    return script


async def silence(request: stream_pb2.PublishRequest, context: Any) -> None:
    await asyncio.Event().wait()
