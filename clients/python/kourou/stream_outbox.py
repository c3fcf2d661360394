"""Sending by the stream door."""

from __future__ import annotations

from collections.abc import Sequence

from kourou.codecs import Compression
from kourou.errors import MessageTooLarge
from kourou.frame import Frame, Limits
from kourou.message import WIRE_TYPE
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.stream.v1 import stream_pb2
from kourou.publish_stream import PublishStream
from kourou.results import Outcome, Stored
from kourou.route import Queue
from kourou.transport import MAX_MESSAGE_BYTES
from kourou.wire import Wire

_LIMITS = Limits(max_count=4096, max_bytes=256 * 1024)
_MAX_REQUEST_BYTES = MAX_MESSAGE_BYTES - 4096


class StreamOutbox:
    """kourou.outbox.Outbox."""

    def __init__(self, wire: Wire, compression: Compression | None) -> None:
        self._wire = wire
        self._compression: Compression | None = compression
        self._streams: dict[str, PublishStream] = {}
        wire.on_reconnect.append(self._reconnect)

    def limits(self, address: str) -> Limits:
        return _LIMITS

    async def send(self, frame: Frame, queue: Queue, timeout_s: float) -> Sequence[Outcome]:
        stream = self._streams.get(queue.address)
        if stream is None:
            stream = self._streams[queue.address] = PublishStream(self._wire, queue.address)
        encoded = frame.encoded(self._compression)
        size_bytes = len(encoded.headers) + len(encoded.bodies)
        if size_bytes > _MAX_REQUEST_BYTES:
            # gRPC would end the whole stream, with what others have under way.
            text = f"keys and properties of {len(encoded.headers)} bytes do not fit into a request"
            raise MessageTooLarge(v2.MESSAGE_PROPERTIES_TOO_LARGE, text)
        request = stream_pb2.PublishRequest(
            topic=v2.Resource(name=frame.kind.topic),
            type=WIRE_TYPE[frame.kind.type],
            headers=encoded.headers,
            bodies=encoded.bodies,
        )
        answer = await stream.ask(request, size_bytes, timeout_s)
        return Stored(frame.first_id, len(frame.messages), queue, answer)

    async def close(self) -> None:
        for stream in self._streams.values():
            await stream.close()

    def _reconnect(self, address: str) -> None:
        if address in self._streams:
            self._streams[address].leave()
