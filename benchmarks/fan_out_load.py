"""Many Consume streams in one process, each of a client and a group of its own, all of one topic.

    python -m benchmarks.fan_out_load ADDRESS TOPIC GROUP STREAMS MESSAGES

The groups are called GROUP-0000, GROUP-0001 ... When all streams wait with their credits it writes a line of JSON, and
another one when each has received and acknowledged so many messages. Every answer is checked.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

import grpc

from benchmarks.echo_server import FRAME_MESSAGES
from benchmarks.stream_load import check, settle
from kourou.protocol.kourou.stream.v1 import stream_pb2, stream_rpc

CREDITS = 2
_CONNECTIONS = 8
_SETTLED_S = 1.0
_OPTIONS = [("grpc.max_receive_message_length", 64 << 20)]
_CREDIT = stream_pb2.ConsumeRequest(credit=stream_pb2.Credit(messages=FRAME_MESSAGES)).SerializeToString()


class Consumer:
    """One stream. Its frames are of FRAME_MESSAGES messages."""

    def __init__(self, channel: grpc.aio.Channel, topic: str, group: str) -> None:
        method = stream_rpc.CONSUME
        stub: Any = channel.stream_stream(method.path, response_deserializer=method.response.FromString)
        self._call: Any = stub(metadata=(("x-mq-client-id", f"fan-out-{os.getpid()}-{group}"),))
        self._open = stream_pb2.Open(group={"name": group}, topic={"name": topic}, auto_renew=True)

    async def park(self) -> None:
        await self._call.write(stream_pb2.ConsumeRequest(open=self._open).SerializeToString())
        for _ in range(CREDITS):
            await self._call.write(_CREDIT)

    async def consume(self, messages: int) -> None:
        delivered = settled = 0
        while settled < messages:
            answer = await self._call.read()
            if answer is grpc.aio.EOF:  # pyright: ignore[reportAttributeAccessIssue]
                raise SystemExit(f"a stream ended: {await self._call.code()}")
            match answer.WhichOneof("answer"):
                case "settled":
                    check(answer.settled.status)
                    settled += FRAME_MESSAGES
                case "delivery":
                    delivered += 1
                    await self._call.write(settle(delivered, answer.delivery))
                    await self._call.write(_CREDIT)
                case _:
                    check(answer.refused)
        self._call.cancel()


async def main(address: str, topic: str, group: str, streams: int, messages: int) -> None:
    channels = [grpc.aio.insecure_channel(address, options=[*_OPTIONS, ("channel", n)]) for n in range(_CONNECTIONS)]
    consumers = [Consumer(channels[n % _CONNECTIONS], topic, f"{group}-{n:04d}") for n in range(streams)]
    await asyncio.gather(*(consumer.park() for consumer in consumers))
    await asyncio.sleep(_SETTLED_S)
    print(json.dumps({"parked": streams}), flush=True)
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    await asyncio.gather(*(consumer.consume(messages) for consumer in consumers))
    took_s = time.monotonic() - began_s
    cpu_share = (time.process_time() - began_cpu_s) / took_s
    print(json.dumps({"seconds": took_s, "cpu_share": cpu_share}), flush=True)


if __name__ == "__main__":
    address, topic, group, streams, messages = sys.argv[1:]
    asyncio.run(main(address, topic, group, int(streams), int(messages)))
