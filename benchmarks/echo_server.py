"""The bare echo that everything is measured against: our engine and our protocol classes, but no log and no state.

It parses each request and builds the answer a broker would give. `python -m benchmarks.echo_server` listens on a free
port, which it prints.
"""

import asyncio
import sys

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.google.protobuf import timestamp_pb2
from kourou_service.engine import Engine, StreamCall, UnaryCall, create_engine
from kourou_service.process import run_process

OK = definition_pb2.Status(code=definition_pb2.OK, message="OK")
BODY = bytes(1024)


def send(data: bytes, call: UnaryCall) -> None:
    request = service_pb2.SendMessageRequest.FromString(data)
    response = service_pb2.SendMessageResponse(status=OK)
    for offset, message in enumerate(request.messages):
        entry = response.entries.add(message_id=message.system_properties.message_id, offset=offset)
        entry.status.CopyFrom(OK)
    call.reply(response.SerializeToString())


def acknowledge(data: bytes, call: UnaryCall) -> None:
    request = service_pb2.AckMessageRequest.FromString(data)
    response = service_pb2.AckMessageResponse(status=OK)
    for acked in request.entries:
        entry = response.entries.add(message_id=acked.message_id, receipt_handle=acked.receipt_handle)
        entry.status.CopyFrom(OK)
    call.reply(response.SerializeToString())


async def receive(call: StreamCall) -> None:
    """As many messages as asked for, made anew each time."""
    request = service_pb2.ReceiveMessageRequest.FromString(await call.receive() or b"")
    await call.send(service_pb2.ReceiveMessageResponse(status=OK).SerializeToString())
    for offset in range(request.batch_size):
        properties = definition_pb2.SystemProperties(
            message_id=f"01{offset:032X}",
            receipt_handle=f"handle-{offset:032d}",
            message_type=definition_pb2.NORMAL,
            body_encoding=definition_pb2.IDENTITY,
            queue_offset=offset,
            delivery_attempt=1,
        )
        message = definition_pb2.Message(topic=request.message_queue.topic, body=BODY, system_properties=properties)
        await call.send(service_pb2.ReceiveMessageResponse(message=message).SerializeToString())
    sent = service_pb2.ReceiveMessageResponse(delivery_timestamp=timestamp_pb2.Timestamp(seconds=1))
    await call.send(sent.SerializeToString())


def open_doors(engine: Engine) -> None:
    engine.unary(service_rpc.SEND_MESSAGE.path, send)
    engine.unary(service_rpc.ACK_MESSAGE.path, acknowledge)
    engine.stream(service_rpc.RECEIVE_MESSAGE.path, receive)


async def serve(stop: asyncio.Event) -> None:
    engine = create_engine("auto")
    open_doors(engine)
    print(engine.listen("127.0.0.1:0"), flush=True)
    await engine.start()
    await stop.wait()
    await engine.stop(0)


if __name__ == "__main__":
    sys.exit(run_process("echo", serve))
