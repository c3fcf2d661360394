"""Load on the stream door: frames that were made before, so that the server and not the client is measured.

    python -m benchmarks.stream_load publish ADDRESS TOPIC GROUP SECONDS
    python -m benchmarks.stream_load fill    ADDRESS TOPIC GROUP MESSAGES
    python -m benchmarks.stream_load consume ADDRESS TOPIC GROUP MESSAGES

It writes what it measured as a line of JSON. Every answer is checked.
"""

import argparse
import json
import os
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
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


def frames(topics: Sequence[str], body: bytes) -> Iterator[bytes]:
    """To the topics in turn; they differ in their numbers and ids only."""
    bodies = body * FRAME_MESSAGES
    prefix = f"01{time.time_ns() & (1 << 96) - 1:024X}"
    for number, topic in zip(range(1, (1 << 32) // FRAME_MESSAGES), cycle(topics), strict=False):
        headers = stream_pb2.BatchHeaders(
            first_message_id=f"{prefix}{number * FRAME_MESSAGES:08X}",
            born_ms=time.time_ns() // 1_000_000,
            born_host="load",
            body_bytes=[len(body)] * FRAME_MESSAGES,
        )
        request = stream_pb2.PublishRequest(
            number=number,
            topic={"name": topic},
            type=definition_pb2.NORMAL,
            headers=headers.SerializeToString(),
            bodies=bodies,
        )
        yield request.SerializeToString()


def publish(channel: grpc.Channel, load: argparse.Namespace) -> dict[str, Any]:
    """For so many seconds."""
    meter = Meter()
    return _publish(channel, load, meter, lambda _sent: meter.seconds < load.amount)


def fill(channel: grpc.Channel, load: argparse.Namespace) -> dict[str, Any]:
    """So many messages, rounded up to frames."""
    return _publish(channel, load, Meter(), lambda sent: sent * FRAME_MESSAGES < load.amount)


def _publish(
    channel: grpc.Channel, load: argparse.Namespace, meter: Meter, goes_on: Callable[[int], bool]
) -> dict[str, Any]:
    """goes_on: whether there is one more after so many frames."""
    stream = Stream(channel, stream_rpc.PUBLISH)
    made = frames(topic_names(load.topic, load.topics), bytes(load.body_bytes))
    sent = answered = 0
    for answer in stream.answers:
        check(answer.status)
        if answer.number:
            answered += 1
            meter.messages += FRAME_MESSAGES
        while sent - answered < FRAMES_IN_FLIGHT and goes_on(sent):
            stream.put(next(made))
            sent += 1
        if sent == answered:
            break
    result = meter.result()
    stream.close()
    return result


def topic_names(topic: str, topics: int) -> list[str]:
    """As the compiled load program calls them."""
    return [topic] if topics == 1 else [f"{topic}-{number:04d}" for number in range(topics)]


def consume(channel: grpc.Channel, load: argparse.Namespace) -> dict[str, Any]:
    """Receives and acknowledges so many messages, a frame for each credit, not faster than the rate if there is one."""
    stream = Stream(channel, stream_rpc.CONSUME)
    opened = stream_pb2.Open(group={"name": load.group}, topic={"name": load.topic}, auto_renew=True)
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
                if meter.messages >= load.amount:
                    break
            case "delivery":
                number += 1
                stream.put(settle(number, answer.delivery))
                if load.rate:
                    time.sleep(max(number * FRAME_MESSAGES / load.rate - meter.seconds, 0))
                stream.put(credit)
            case _:
                check(answer.refused)
    result = meter.result()
    stream.answers.cancel()
    return result


def settle(number: int, delivery: stream_pb2.Delivery) -> bytes:
    ranges = [stream_pb2.OffsetRange(first=delivery.base_offset, count=FRAME_MESSAGES)]
    settlement = stream_pb2.Settlement(lease=delivery.lease, ranges=ranges, acknowledged=stream_pb2.Acknowledged())
    settle = stream_pb2.Settle(number=number, settlements=[settlement])
    return stream_pb2.ConsumeRequest(settle=settle).SerializeToString()


def check(status: definition_pb2.Status) -> None:
    if status.code != definition_pb2.OK:
        raise SystemExit(f"answered {definition_pb2.Code.Name(status.code)}: {status.message}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("publish", "fill", "consume"))
    parser.add_argument("address")
    parser.add_argument("topic")
    parser.add_argument("group")
    parser.add_argument("amount", type=float)
    parser.add_argument("--topics", type=int, default=1, help="publish to TOPIC-0000, TOPIC-0001 ... in turn")
    parser.add_argument("--body-bytes", type=int, default=len(BODY))
    parser.add_argument("--rate", type=float, default=0.0, help="consume at most so many messages a second")
    return parser.parse_args()


if __name__ == "__main__":
    load = _arguments()
    modes = {"publish": publish, "fill": fill, "consume": consume}
    with grpc.insecure_channel(load.address, options=_OPTIONS) as channel:
        print(json.dumps(modes[load.mode](channel, load)))
