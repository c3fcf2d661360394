"""The stream door as a test's client uses it."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message as ProtobufMessage

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.stream.v1 import stream_pb2, stream_rpc
from kourou.protocol.method import BidiMethod
from kourou_broker.log.batch import Batch
from tests.unit.broker.alone import Broker, resource

PREFIX = "01C0FFEE000000000000000000"
_sequence = itertools.count(0, 0x1_0000)


def headers(*bodies: bytes, **fields: Any) -> stream_pb2.BatchHeaders:
    """With ids of their own unless told otherwise."""
    fields.setdefault("first_message_id", f"{PREFIX}{next(_sequence):08X}")
    return stream_pb2.BatchHeaders(
        born_ms=1_600_000_000_123, born_host="host", body_bytes=[len(body) for body in bodies], **fields
    )


def ids(made: stream_pb2.BatchHeaders) -> list[str]:
    batch = as_stored(made.SerializeToString())
    return [batch.message_id(index) for index in range(len(made.body_bytes))]


def as_stored(made: bytes, bodies: bytes = b"") -> Batch:
    """As a broker has it."""
    request = stream_pb2.PublishRequest(topic=resource("orders"), headers=made, bodies=bodies)
    return Batch(request.SerializeToString())


class _Stream:
    def __init__(self, broker: Broker, method: BidiMethod[Any, Any], client: str) -> None:
        self._method = method
        self.call = broker.doors.open(method, {"x-mq-client-id": client})
        self._read = 0

    def put(self, request: ProtobufMessage) -> None:
        self.call.requests.put_nowait(request.SerializeToString())

    async def answer(self, within_s: float = 60) -> Any:
        """The next one; waits for it."""
        async with asyncio.timeout(within_s):
            while len(self.call.answers) <= self._read:  # noqa: ASYNC110  (simulated time)
                await asyncio.sleep(0.001)
        self._read += 1
        return self._method.response.FromString(self.call.answers[self._read - 1])

    async def end(self) -> None:
        """The client has nothing more to say, and reads to the end."""
        self.call.requests.put_nowait(None)
        await self.call.ended

    @property
    def unread(self) -> int:
        return len(self.call.answers) - self._read


class Publisher(_Stream):
    def __init__(self, broker: Broker, client: str = "producer") -> None:
        super().__init__(broker, stream_rpc.PUBLISH, client)
        self._numbers = itertools.count(1)

    def publish(
        self,
        made: stream_pb2.BatchHeaders | bytes,
        bodies: bytes,
        *,
        topic: str = "orders",
        type_: int = definition_pb2.NORMAL,
        number: int | None = None,
    ) -> int:
        number = next(self._numbers) if number is None else number
        data = made if isinstance(made, bytes) else made.SerializeToString()
        request = stream_pb2.PublishRequest(number=number, topic=resource(topic), headers=data, bodies=bodies)
        request.type = type_  # type: ignore[assignment]
        self.put(request)
        return number

    async def send(self, *bodies: bytes, **fields: Any) -> stream_pb2.PublishResponse:
        """One batch of them, and its answer."""
        of_request = {name: fields.pop(name) for name in ("topic", "type_") if name in fields}
        return await self.sent(headers(*bodies, **fields), b"".join(bodies), **of_request)

    async def sent(
        self, made: stream_pb2.BatchHeaders | bytes, bodies: bytes, **of_request: Any
    ) -> stream_pb2.PublishResponse:
        number = self.publish(made, bodies, **of_request)
        while (answer := await self.answer()).number != number:
            assert answer.number == 0
        return answer


class Consumer(_Stream):
    def __init__(
        self,
        broker: Broker,
        client: str = "consumer",
        *,
        group: str = "team",
        topic: str = "orders",
        tags: str = "*",
        invisible_s: float | None = None,
        held: Sequence[stream_pb2.Lease] = (),
        codecs: Sequence[stream_pb2.Codec] = (),
    ) -> None:
        """Without invisible_s the client keeps what it is lent while it lives."""
        super().__init__(broker, stream_rpc.CONSUME, client)
        self._numbers = itertools.count(1)
        opened = stream_pb2.Open(
            group=resource(group),
            topic=resource(topic),
            filter=definition_pb2.FilterExpression(type=definition_pb2.TAG, expression=tags),
            auto_renew=invisible_s is None,
            codecs=codecs,
            held=held,
        )
        if invisible_s is not None:
            opened.invisible_duration.FromMilliseconds(int(invisible_s * 1000))
        self.put(stream_pb2.ConsumeRequest(open=opened))

    def grant(self, messages: int = 32, wait_s: float | None = None, **fields: Any) -> None:
        credit = stream_pb2.Credit(messages=messages, **fields)
        if wait_s is not None:
            credit.wait.FromMilliseconds(int(wait_s * 1000))
        self.put(stream_pb2.ConsumeRequest(credit=credit))

    async def deliveries(self) -> list[stream_pb2.Delivery]:
        """Of one credit."""
        found: list[stream_pb2.Delivery] = []
        while True:
            answer = await self.answer()
            assert answer.WhichOneof("answer") == "delivery", answer
            if answer.delivery.messages or answer.delivery.headers:
                found.append(answer.delivery)
            if answer.delivery.last:
                return found

    async def receive(self, messages: int = 32, wait_s: float = 0) -> list[stream_pb2.Delivery]:
        self.grant(messages, wait_s)
        return await self.deliveries()

    async def settle(self, *settlements: stream_pb2.Settlement) -> stream_pb2.Settled:
        self.put(
            stream_pb2.ConsumeRequest(settle=stream_pb2.Settle(number=next(self._numbers), settlements=settlements))
        )
        answer = await self.answer()
        assert answer.WhichOneof("answer") == "settled", answer
        return answer.settled

    async def ack(self, *deliveries: stream_pb2.Delivery) -> int:
        settled = await self.settle(*(settlement(each, acknowledged=stream_pb2.Acknowledged()) for each in deliveries))
        return settled.status.code


def offsets(delivery: stream_pb2.Delivery) -> list[int]:
    if delivery.messages:
        return list(delivery.offsets)
    made = stream_pb2.BatchHeaders.FromString(delivery.headers)
    return [delivery.base_offset + index for index in delivery.indexes or range(len(made.body_bytes))]


def bodies(*deliveries: stream_pb2.Delivery) -> list[bytes]:
    """Of a batch or of single messages, whichever it is."""
    found: list[bytes] = []
    for delivery in deliveries:
        if delivery.messages:
            found += [definition_pb2.Message.FromString(each).body for each in delivery.messages]
        else:
            batch = as_stored(delivery.headers, delivery.bodies)
            count = len(batch.headers.body_bytes)
            found += [batch.message(index).body for index in delivery.indexes or range(count)]
    return found


def settlement(delivery: stream_pb2.Delivery, some: Sequence[int] = (), **outcome: Any) -> stream_pb2.Settlement:
    """Of all of its messages, or of those at some offsets."""
    return stream_pb2.Settlement(
        lease=delivery.lease,
        ranges=[stream_pb2.OffsetRange(first=offset, count=1) for offset in some or offsets(delivery)],
        **outcome,
    )
