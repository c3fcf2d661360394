"""The bare echo that everything is measured against: our engine and our protocol classes, but no log and no state.

It parses each request and builds the answer a broker would give. `python -m benchmarks.echo_server` listens on a free
port, which it prints.
"""

import asyncio
import sys

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.google.protobuf import timestamp_pb2
from kourou.protocol.kourou.stream.v1 import stream_pb2, stream_rpc
from kourou_service.engine import Engine, StreamCall, UnaryCall, create_engine
from kourou_service.process import run_process

OK = definition_pb2.Status(code=definition_pb2.OK, message="OK")
BODY = bytes(1024)
FRAME_MESSAGES = 256
"""Of the stream door's frames: 256 KiB."""


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


async def publish(call: StreamCall) -> None:
    """Frames as they come, each parsed and answered."""
    await call.send(stream_pb2.PublishResponse(status=OK, window_bytes=8 << 20).SerializeToString())
    while (data := await call.receive()) is not None:
        request = stream_pb2.PublishRequest.FromString(data)
        response = stream_pb2.PublishResponse(number=request.number, status=OK, places=[stream_pb2.Place(queue=0)])
        await call.send(response.SerializeToString())


async def consume(call: StreamCall) -> None:
    """A frame like those that are published for each credit; every settlement is answered."""
    headers = stream_pb2.BatchHeaders(first_message_id="00000000", body_bytes=[len(BODY)] * FRAME_MESSAGES)
    data, bodies = headers.SerializeToString(), BODY * FRAME_MESSAGES
    await call.receive()
    while (request := await call.receive()) is not None:
        command = stream_pb2.ConsumeRequest.FromString(request)
        if command.HasField("settle"):
            answer = stream_pb2.Settled(number=command.settle.number, status=OK)
            await call.send(stream_pb2.ConsumeResponse(settled=answer).SerializeToString())
        else:
            delivery = stream_pb2.Delivery(lease=stream_pb2.Lease(), headers=data, bodies=bodies, last=True)
            await call.send(stream_pb2.ConsumeResponse(delivery=delivery).SerializeToString())


def open_doors(engine: Engine) -> None:
    engine.stream(stream_rpc.PUBLISH.path, publish)
    engine.stream(stream_rpc.CONSUME.path, consume)
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
