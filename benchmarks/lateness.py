"""How late delayed messages reach a consumer that waits for them, under light load."""

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta

from benchmarks.figure import Figure
from benchmarks.servers import Cluster
from kourou import AsyncProducer, AsyncSimpleConsumer, Message
from kourou.protocol.apache.rocketmq.v2 import definition_pb2

TOPIC = GROUP = "bench-lateness"
MESSAGES = 400
RATE_PER_S = 20
DELAY_S = (1.0, 4.0)
TARGET_MS = 100
"""What the broker promises of messages under light load."""
_PATIENCE_S = 60.0


def lateness(cluster: Cluster) -> list[Figure]:
    cluster.broker.put_topics([TOPIC], definition_pb2.DELAY)
    cluster.broker.put_group(GROUP)
    late_ms = sorted(asyncio.run(_measure(cluster.access_point)))
    if late_ms[0] < 0:
        raise RuntimeError(f"a message came {-late_ms[0]:.1f} ms before its time")
    details = {"load": f"{RATE_PER_S} messages/s, delayed by {DELAY_S[0]:g} to {DELAY_S[1]:g} s"}
    median, most = late_ms[len(late_ms) // 2], late_ms[len(late_ms) * 99 // 100]
    return [
        Figure("lateness, median", "ms", median, details=details),
        Figure.at_most("lateness, 99 %", "ms", most, TARGET_MS),
        Figure.at_most("lateness, the latest", "ms", late_ms[-1], TARGET_MS),
    ]


async def _measure(access_point: str) -> list[float]:
    """Of each message, ms from when it was due until the consumer had it."""
    late_ms: list[float] = []
    async with (
        AsyncProducer(access_point) as producer,
        AsyncSimpleConsumer(GROUP, {TOPIC: "*"}, access_point) as consumer,
        asyncio.timeout(MESSAGES / RATE_PER_S + _PATIENCE_S),
        asyncio.TaskGroup() as aside,
    ):
        aside.create_task(_send(producer))
        while len(late_ms) < MESSAGES:
            messages = await consumer.receive()
            now_s = time.time()
            for message in messages:
                assert message.delivery_time is not None
                late_ms.append((now_s - message.delivery_time.timestamp()) * 1000)
            if messages:
                aside.create_task(consumer.ack(messages))
    return late_ms


async def _send(producer: AsyncProducer) -> None:
    rng = random.Random(1)
    for number in range(MESSAGES):
        due = datetime.now(UTC) + timedelta(seconds=rng.uniform(*DELAY_S))
        whole_ms = due.replace(microsecond=due.microsecond // 1000 * 1000)
        await producer.send(Message(TOPIC, b"%d" % number, delivery_time=whole_ms))
        await asyncio.sleep(1 / RATE_PER_S)
