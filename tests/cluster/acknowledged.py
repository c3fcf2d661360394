"""The network of a consumer that acknowledges by itself: it notes what brokers confirmed."""

from typing import Any

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_rpc
from kourou.transport import Channel, GrpcTransport, Reply


class Acknowledged(GrpcTransport):
    def __init__(self) -> None:
        super().__init__()
        self.handles: set[str] = set()
        """Of messages that their brokers said to be settled."""

    def channel(self, address: str) -> Channel:
        return _Channel(super().channel(address), self.handles)


class _Channel:
    def __init__(self, channel: Channel, handles: set[str]) -> None:
        self._channel = channel
        self._handles = handles
        self.server_stream = channel.server_stream
        self.bidi = channel.bidi
        self.close = channel.close

    async def unary(self, method: Any, request: Any, **options: Any) -> Reply[Any]:
        reply = await self._channel.unary(method, request, **options)
        if method is service_rpc.ACK_MESSAGE:
            settled = (entry for entry in reply.message.entries if entry.status.code == v2.OK)
            self._handles.update(entry.receipt_handle for entry in settled)
        return reply
