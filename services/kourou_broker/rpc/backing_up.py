"""BrokerAdmin: BackUp, the copy of the data folder as a stream."""

import asyncio

from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_broker.operations.backup import Backups
from kourou_service.door import OK, serve_stream
from kourou_service.engine import AbortCall, Engine, StatusCode, StreamCall

STALL_S = 60.0
"""Who takes no piece for so long gets no further one: segments are kept as long as a copy is made."""


class BackingUpDoor:
    def __init__(self, backups: Backups) -> None:
        self._backups = backups

    def open(self, engine: Engine) -> None:
        serve_stream(engine, broker_rpc.BACK_UP, self._back_up)

    async def _back_up(self, request: broker_pb2.BackUpRequest, call: StreamCall) -> None:
        async with self._backups.begin() as backup:
            await _send(call, broker_pb2.BackUpResponse(status=OK, total_bytes=backup.total_bytes))
            async for piece in backup.pieces():
                await _send(
                    call,
                    broker_pb2.BackUpResponse(
                        status=OK,
                        file=piece.file,
                        offset=piece.offset,
                        data=piece.data,
                        size_bytes=piece.size_bytes,
                    ),
                )
            await _send(call, broker_pb2.BackUpResponse(status=OK, log_position=backup.position))


async def _send(call: StreamCall, response: broker_pb2.BackUpResponse) -> None:
    """The engine lets one wait behind the one under way, so a slow reader slows the reading down."""
    try:
        async with asyncio.timeout(STALL_S):
            await call.send(response.SerializeToString())
    except TimeoutError:
        raise AbortCall(StatusCode.DEADLINE_EXCEEDED, f"nothing was taken for {STALL_S:.0f} s") from None
