"""One stream of Stream.Consume: its credits are served one after the other, while it settles what came before."""

import asyncio
from collections import deque
from dataclasses import dataclass
from time import perf_counter

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.stream.v1 import stream_pb2
from kourou_broker.operations.clients import Client, Clients
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.delivery import Deliveries
from kourou_broker.operations.filters import Filter
from kourou_broker.operations.matching import MAX_BATCH_BYTES
from kourou_broker.operations.poll import Delivery, Poll
from kourou_broker.rpc.answers import Answers
from kourou_broker.rpc.receiving import consumer_type
from kourou_broker.rpc.stream_deliveries import NOTHING, responses
from kourou_broker.rpc.stream_settling import StreamSettling
from kourou_broker.state.definitions import Group, Topic
from kourou_service.door import parse
from kourou_service.engine import StreamCall
from kourou_service.metrics.calls import Meter
from kourou_service.refusal import Refused
from kourou_service.wire_times import milliseconds

MAX_CREDITS = 64
"""That wait to be served."""
MAX_MESSAGES = 65_536
"""Of one credit."""
_MAX_WAIT_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Consumer:
    """Who consumes what."""

    client: Client
    group: Group
    topic: Topic
    wanted: Filter
    auto_renew: bool
    invisible_ms: int
    codecs: frozenset[int]
    """What it can unpack."""

    @property
    def key(self) -> tuple[str, int, int]:
        return self.client.id, self.group.id, self.topic.id


class ConsumeStream:
    def __init__(
        self,
        consumer: Consumer,
        call: StreamCall,
        answers: Answers,
        meter: Meter,
        definitions: Definitions,
        clients: Clients,
        deliveries: Deliveries,
        settling: StreamSettling,
    ) -> None:
        self._consumer = consumer
        self._call = call
        self._answers = answers
        self._meter = meter
        self._definitions = definitions
        self._clients = clients
        self._deliveries = deliveries
        self._settling = settling
        self._credits: deque[stream_pb2.Credit] = deque()
        self._woken = asyncio.Event()
        self._settled = asyncio.Event()
        self._settling_now = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Until the client has nothing more to say, or `end`. Raises Refused when it may not consume any more."""
        tasks = [asyncio.ensure_future(each) for each in (self._read(), self._serve(), self._over)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            while self._settling_now:
                self._settled.clear()
                await self._settled.wait()
        finally:
            for task in tasks:
                task.cancel()

    def end(self) -> None:
        """Another stream of the client takes its place, or the broker stops."""
        if not self._over.done():
            self._over.set_result(None)

    async def _read(self) -> None:
        while (data := await self._call.receive()) is not None:
            request = parse(stream_pb2.ConsumeRequest, data)
            self._clients.touch(self._consumer.client.id, self._call)
            match request.WhichOneof("command"):
                case "credit":
                    self._grant(request.credit)
                case "settle":
                    self._settle(request.settle)
                case _:
                    raise Refused(
                        definition_pb2.BAD_REQUEST, "a stream is opened once, then it has credits and settles"
                    )

    def _grant(self, credit: stream_pb2.Credit) -> None:
        if not 0 < credit.messages <= MAX_MESSAGES:
            raise Refused(definition_pb2.BAD_REQUEST, f"a credit is for 1 to {MAX_MESSAGES} messages")
        if len(self._credits) >= MAX_CREDITS:
            raise Refused(definition_pb2.TOO_MANY_REQUESTS, f"over {MAX_CREDITS} credits wait to be served")
        self._credits.append(credit)
        self._woken.set()

    def _settle(self, request: stream_pb2.Settle) -> None:
        started = perf_counter()
        self._settling_now += 1

        def settled(answer: stream_pb2.Settled) -> None:
            self._settling_now -= 1
            self._answers.put(stream_pb2.ConsumeResponse(settled=answer).SerializeToString())
            self._meter.done(started, answer.status.code)
            self._settled.set()

        task = self._settling.settle(self._consumer.group, self._consumer.topic, request, self._call, settled)
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self) -> None:
        while True:
            while not self._credits:
                self._woken.clear()
                await self._woken.wait()
            await self._answers.room()
            await self._serve_credit(self._credits.popleft())

    async def _serve_credit(self, credit: stream_pb2.Credit) -> None:
        consumer = self._consumer
        started = perf_counter()
        deliveries, waited = await self._receive(credit)
        parts = [part for delivery in deliveries for part in responses(delivery, consumer.codecs)]
        for part in parts[:-1]:
            self._answers.put(part.encode(last=False))
        self._answers.put(parts[-1].encode(last=True) if parts else NOTHING)
        self._meter.done(started, definition_pb2.OK if parts else definition_pb2.MESSAGE_NOT_FOUND, waited=waited)

    async def _receive(self, credit: stream_pb2.Credit) -> tuple[list[Delivery], bool]:
        """As soon as there is something: what there is, as far as the credit reaches. -> and whether it waited."""
        loop = asyncio.get_running_loop()
        ends_s = None
        if credit.HasField("wait"):
            wait_ms = milliseconds(credit.wait, definition_pb2.ILLEGAL_POLLING_TIME)
            if not 0 <= wait_ms <= _MAX_WAIT_MS:
                raise Refused(definition_pb2.ILLEGAL_POLLING_TIME, f"the waiting time {wait_ms} ms is out of range")
            ends_s = loop.time() + wait_ms / 1000
        while True:
            client, group, topic = self._member()
            poll = self._poll(credit)
            left_s = None if ends_s is None else max(ends_s - loop.time(), 0.0)
            deliveries = await self._deliveries.receive(group, topic, client, poll, left_s)
            if deliveries or poll.expired:
                return deliveries, poll.waited
            await asyncio.sleep(0)  # its client has other queues than before

    def _member(self) -> tuple[Client, Group, Topic]:
        """Raises Refused when the topic or the group is not there any more, or may not be read."""
        consumer = self._consumer
        topic = self._definitions.readable_topic(consumer.topic.name.resource())
        group = self._definitions.existing_group(consumer.group.name.resource())
        if topic is not consumer.topic or group is not consumer.group:
            raise Refused(definition_pb2.TOPIC_NOT_FOUND, "the topic or the group was deleted and made anew meanwhile")
        client = self._clients.touch(consumer.client.id, self._call)
        self._clients.join(client, consumer_type(client, group, consumer.auto_renew), group.name, topic.name)
        return client, group, topic

    def _poll(self, credit: stream_pb2.Credit) -> Poll:
        consumer = self._consumer
        return Poll(
            consumer.client.id,
            consumer.wanted,
            credit.messages,
            consumer.invisible_ms,
            consumer.auto_renew,
            "",
            None,
            follows=True,
            takes_runs=True,
            room_bytes=min(credit.bytes or MAX_BATCH_BYTES, MAX_BATCH_BYTES),
        )
