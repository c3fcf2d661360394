"""Stream.Consume: who opens a stream, and what becomes of its leases when it breaks."""

import asyncio
from functools import partial

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.stream.v1 import stream_pb2, stream_rpc
from kourou_broker.operations.clients import Clients
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.delivery import Deliveries
from kourou_broker.operations.filters import compile_filter
from kourou_broker.operations.receipt import LeaseName
from kourou_broker.rpc.answers import answering
from kourou_broker.rpc.consume_stream import Consumer, ConsumeStream
from kourou_broker.rpc.receiving import asked_invisible_ms
from kourou_broker.rpc.stream_settling import StreamSettling
from kourou_service.door import client_id, parse, status
from kourou_service.engine import Engine, StreamCall
from kourou_service.metrics.calls import Meter
from kourou_service.refusal import Refused


class ConsumingDoor:
    def __init__(
        self,
        definitions: Definitions,
        clients: Clients,
        deliveries: Deliveries,
        settling: StreamSettling,
        *,
        stream_grace_s: float,
    ) -> None:
        """stream_grace_s: how long a client keeps what it was lent after its stream broke."""
        self._definitions = definitions
        self._clients = clients
        self._deliveries = deliveries
        self._settling = settling
        self._stream_grace_s = stream_grace_s
        self._loop = asyncio.get_running_loop()
        self._streams: dict[tuple[str, int, int], ConsumeStream] = {}
        """By client, group and topic. Of a client's streams for the same the newest counts."""

    def open(self, engine: Engine) -> None:
        path = stream_rpc.CONSUME.path
        engine.stream(path, partial(self._consume, engine.meters.of(path)))

    def close(self) -> None:
        """Ends all streams: the broker stops."""
        for stream in list(self._streams.values()):
            stream.end()

    async def _consume(self, meter: Meter, call: StreamCall) -> None:
        async with answering(call) as answers:
            try:
                request = parse(stream_pb2.ConsumeRequest, await call.receive() or b"")
                consumer = self._consumer(request, call)
                stream = ConsumeStream(
                    consumer, call, answers, meter, self._definitions, self._clients, self._deliveries, self._settling
                )
                await self._run(stream, consumer)
            except Refused as problem:
                answers.put(
                    stream_pb2.ConsumeResponse(refused=status(problem.code, problem.message)).SerializeToString()
                )

    async def _run(self, stream: ConsumeStream, consumer: Consumer) -> None:
        key = consumer.key
        before = self._streams.get(key)
        if before is not None:
            before.end()
        self._streams[key] = stream
        try:
            await stream.run()
        finally:
            if self._streams.get(key) is stream:
                del self._streams[key]
                self._loop.call_later(self._stream_grace_s, self._give_back, consumer)

    def _give_back(self, consumer: Consumer) -> None:
        """A client that lives may have left this stream for good."""
        if consumer.key not in self._streams:
            self._deliveries.give_back_all(consumer.group, consumer.topic, consumer.client, ())

    def _consumer(self, request: stream_pb2.ConsumeRequest, call: StreamCall) -> Consumer:
        if request.WhichOneof("command") != "open":
            raise Refused(definition_pb2.BAD_REQUEST, "a stream begins with Open")
        asked = request.open
        client = self._clients.touch(client_id(call), call)
        topic = self._definitions.readable_topic(asked.topic)
        wanted = compile_filter(asked.filter)
        invisible_ms = self._deliveries.invisible_ms(asked_invisible_ms(asked))
        group = self._definitions.group_reading(topic, asked.group)
        if group.lite_topic is not None or topic.lite is not None:
            raise Refused(definition_pb2.NOT_IMPLEMENTED, "lite topics are read through apache.rocketmq.v2")
        held = {LeaseName(lease.queue, lease.incarnation, lease.number) for lease in asked.held}
        self._deliveries.give_back_all(group, topic, client, held)
        return Consumer(client, group, topic, wanted, asked.auto_renew, invisible_ms, frozenset(asked.codecs))
