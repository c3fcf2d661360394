"""BrokerAdmin: BackUp, the copy of the data folder as a stream."""

from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_broker.operations.backup import Backups
from kourou_service.door import OK, send_in_time, serve_stream
from kourou_service.engine import Engine, StreamCall


class BackingUpDoor:
    def __init__(self, backups: Backups) -> None:
        self._backups = backups

    def open(self, engine: Engine) -> None:
        serve_stream(engine, broker_rpc.BACK_UP, self._back_up)

    async def _back_up(self, request: broker_pb2.BackUpRequest, call: StreamCall) -> None:
        async with self._backups.begin() as backup:
            await send_in_time(call, broker_pb2.BackUpResponse(status=OK, total_bytes=backup.total_bytes))
            async for piece in backup.pieces():
                await send_in_time(
                    call,
                    broker_pb2.BackUpResponse(
                        status=OK,
                        file=piece.file,
                        offset=piece.offset,
                        data=piece.data,
                        size_bytes=piece.size_bytes,
                    ),
                )
            await send_in_time(call, broker_pb2.BackUpResponse(status=OK, log_position=backup.position))
