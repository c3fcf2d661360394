"""Load on the stream door: frames that were made before, so that the server and not the client is measured.

    python -m benchmarks.stream_load publish ADDRESS TOPIC GROUP SECONDS
    python -m benchmarks.stream_load consume ADDRESS TOPIC GROUP MESSAGES

It writes what it measured as a line of JSON. Every answer is checked.
"""

import json
import os
import queue
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc

from benchmarks.echo_server import BODY, FRAME_MESSAGES
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.stream.v1 import stream_pb2, stream_rpc
from kourou.protocol.method import BidiMethod

FRAMES_IN_FLIGHT = 16
_OPTIONS = [("grpc.max_receive_message_length", 64 << 20)]
_CLIENT = (("x-mq-client-id", f"stream-load-{os.getpid()}"),)


class Stream:
    """A bidirectional stream of bytes out and messages in."""

    def __init__(self, channel: grpc.Channel, method: BidiMethod[Any, Any]) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        stub: Any = channel.stream_stream(method.path, response_deserializer=method.response.FromString)
        self.answers: Any = stub(iter(self._requests.get, None), metadata=_CLIENT)

    def put(self, request: bytes) -> None:
        self._requests.put(request)

    def close(self) -> None:
        self._requests.put(None)
        for _ in self.answers:
            pass


class Meter:
    """From its start on."""

    def __init__(self) -> None:
        self._begin_s, self._begin_cpu_s = time.monotonic(), time.process_time()
        self.messages = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begin_s

    def result(self) -> dict[str, Any]:
        return {
            "messages": self.messages,
            "messages_per_s": self.messages / self.seconds,
            "cpu_share": (time.process_time() - self._begin_cpu_s) / self.seconds,
        }


def frames(topic: str) -> Iterator[bytes]:
    """They differ in their numbers and ids only."""
    bodies = BODY * FRAME_MESSAGES
    prefix = f"01{time.time_ns() & (1 << 96) - 1:024X}"
    for number in range(1, (1 << 32) // FRAME_MESSAGES):
        headers = stream_pb2.BatchHeaders(
            first_message_id=f"{prefix}{number * FRAME_MESSAGES:08X}",
            born_ms=time.time_ns() // 1_000_000,
            born_host="load",
            body_bytes=[len(BODY)] * FRAME_MESSAGES,
        )
        request = stream_pb2.PublishRequest(
            number=number,
            topic={"name": topic},
            type=definition_pb2.NORMAL,
            headers=headers.SerializeToString(),
            bodies=bodies,
        )
        yield request.SerializeToString()


def publish(channel: grpc.Channel, topic: str, _group: str, seconds: float) -> dict[str, Any]:
    """For so many seconds."""
    stream = Stream(channel, stream_rpc.PUBLISH)
    made = frames(topic)
    meter = Meter()
    for _ in range(FRAMES_IN_FLIGHT):
        stream.put(next(made))
    under_way = FRAMES_IN_FLIGHT
    for answer in stream.answers:
        check(answer.status)
        if not answer.number:
            continue
        meter.messages += FRAME_MESSAGES
        if meter.seconds < seconds:
            stream.put(next(made))
        else:
            under_way -= 1
            if not under_way:
                break
    result = meter.result()
    stream.close()
    return result


def consume(channel: grpc.Channel, topic: str, group: str, messages: float) -> dict[str, Any]:
    """Receives and acknowledges so many messages, a frame for each credit."""
    stream = Stream(channel, stream_rpc.CONSUME)
    opened = stream_pb2.Open(group={"name": group}, topic={"name": topic}, auto_renew=True)
    credit = stream_pb2.ConsumeRequest(credit=stream_pb2.Credit(messages=FRAME_MESSAGES)).SerializeToString()
    meter = Meter()
    stream.put(stream_pb2.ConsumeRequest(open=opened).SerializeToString())
    for _ in range(FRAMES_IN_FLIGHT):
        stream.put(credit)
    number = 0
    for answer in stream.answers:
        match answer.WhichOneof("answer"):
            case "settled":
                check(answer.settled.status)
                meter.messages += FRAME_MESSAGES
                if meter.messages >= messages:
                    break
            case "delivery":
                number += 1
                stream.put(_settle(number, answer.delivery))
                stream.put(credit)
            case _:
                check(answer.refused)
    result = meter.result()
    stream.answers.cancel()
    return result


def _settle(number: int, delivery: stream_pb2.Delivery) -> bytes:
    ranges = [stream_pb2.OffsetRange(first=delivery.base_offset, count=FRAME_MESSAGES)]
    settlement = stream_pb2.Settlement(lease=delivery.lease, ranges=ranges, acknowledged=stream_pb2.Acknowledged())
    settle = stream_pb2.Settle(number=number, settlements=[settlement])
    return stream_pb2.ConsumeRequest(settle=settle).SerializeToString()


def check(status: definition_pb2.Status) -> None:
    if status.code != definition_pb2.OK:
        raise SystemExit(f"answered {definition_pb2.Code.Name(status.code)}: {status.message}")


if __name__ == "__main__":
    mode, address, topic, group, amount = sys.argv[1:]
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        print(json.dumps({"publish": publish, "consume": consume}[mode](channel, topic, group, float(amount))))
