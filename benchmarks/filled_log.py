"""A long log, written straight into a data folder: a broker that took so many messages would need an hour.

Messages of 1 KiB with an id and a key, in one topic; a group that leased and acknowledged all but the newest, and one
whose filter wants every eighth.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.log.file_medium import FileMedium
from kourou_broker.log.log import Log
from kourou_broker.log.options import LogOptions
from kourou_broker.log.section import MESSAGE_ROW, Section
from kourou_broker.log.worker import ThreadWorker
from kourou_broker.state import Fate, records
from kourou_broker.state.records import Lease

TOPIC = "bench"
QUEUES = 8
_BODY_BYTES = 1024
_A_SECTION = 32
_ACKS_A_SECTION = 4
_WAITING_BYTES = 64 << 20
_BEGAN_MS = time.time_ns() // 1_000_000  # nothing is so old that retention takes it


def message_id(number: int) -> str:
    """Of the message with this number, in the order of the log."""
    return f"01{number:032X}"


def fill(folder: Path, size_bytes: int) -> int:
    """-> how many messages it holds."""
    return asyncio.run(_fill(folder, size_bytes))


async def _fill(folder: Path, size_bytes: int) -> int:
    medium = FileMedium(folder)
    workers = [ThreadWorker(name) for name in ("commit", "background")]
    log = Log.recover(medium, workers[0], LogOptions(flush="async"), 0, lambda _: None, background=workers[1])
    log.append(list(_definitions()), _BEGAN_MS)
    frame = 0
    while log.next_position < size_bytes:
        log.append(list(_frame(frame)), _BEGAN_MS + frame)
        frame += 1
        while log.pending_bytes > _WAITING_BYTES:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.001)
        if frame % 64 == 0:
            await asyncio.sleep(0)
    await log.close()
    for worker in workers:
        worker.close()
    medium.close()
    return frame * _A_SECTION


def _definitions() -> Iterator[Section]:
    yield records.topic(
        record_pb2.Topic(
            id=1,
            name={"name": TOPIC},
            type=definition_pb2.NORMAL,
            queues=QUEUES,
            permission=definition_pb2.READ_WRITE,
            version=1,
        )
    )
    for id_, name in enumerate(("readers", "choosy"), 1):
        yield records.group(
            record_pb2.Group(
                id=id_,
                name={"name": name},
                order=record_pb2.ORDER_CONCURRENT,
                assignment=record_pb2.ASSIGNMENT_SHARED,
                retry=definition_pb2.RetryPolicy(max_attempts=16),
                version=1,
            )
        )


def _frame(number: int) -> Iterator[Section]:
    """Messages of a queue, and what was done with those before them."""
    queue, base = number % QUEUES, number // QUEUES * _A_SECTION
    bodies = [_message(number * _A_SECTION + place) for place in range(_A_SECTION)]
    row = MESSAGE_ROW.pack(len(_HEAD), len(bodies[0]) - len(_HEAD), 0)
    yield records.messages(definition_pb2.NORMAL, 1, queue, base, [row] * _A_SECTION, bodies)
    if base >= _A_SECTION:
        lent = list(range(base - _A_SECTION, base))
        yield records.lease(1, 1, queue, base, _lease(number, lent))
        yield records.lease(2, 1, queue, base, _lease(number, lent[::8]))
    if base >= 2 * _A_SECTION:
        first = base - 2 * _A_SECTION
        for part in range(_ACKS_A_SECTION):
            acked = range(first + part, first + _A_SECTION, _ACKS_A_SECTION)
            yield records.ack(1, 1, queue, list(acked), Fate.CONSUMED)
        yield records.ack(2, 1, queue, list(range(first, first + _A_SECTION, 8)), Fate.CONSUMED)


def _lease(number: int, offsets: list[int]) -> Lease:
    return Lease(7, number + 1, _BEGAN_MS + number + 60_000, 1, False, "host@1@0@abcdefgh", offsets)


_HEAD = definition_pb2.Message(topic={"name": TOPIC}, body=b"x" * _BODY_BYTES).SerializeToString()


def _message(number: int) -> bytes:
    system = definition_pb2.SystemProperties(
        message_id=message_id(number), keys=[f"order-{number:010}"], message_type=definition_pb2.NORMAL
    ).SerializeToString()
    return _HEAD + system
