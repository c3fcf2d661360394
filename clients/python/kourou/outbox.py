"""The way of frames to a broker: through the stream door, or the one that all RocketMQ brokers have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kourou.doors import Doors, NoSuchDoor
from kourou.frame import Frame, Limits
from kourou.results import Outcome
from kourou.route import Queue


class Outbox(Protocol):
    def limits(self, address: str) -> Limits:
        """Of a frame for the broker there; "" stands for a broker that is not known yet."""
        ...

    async def send(self, frame: Frame, queue: Queue, timeout_s: float) -> Sequence[Outcome]:
        """What became of each message. The broker is that of `queue`; which of its queues it takes, is for the door and
        the broker. Raises what the broker answers, or ConnectionFailed or TimeoutExceeded."""
        ...

    async def close(self) -> None: ...


class EitherOutbox:
    """By the stream door where there is one."""

    def __init__(self, doors: Doors, stream: Outbox, rocketmq: Outbox) -> None:
        self._doors = doors
        self._stream = stream
        self._rocketmq = rocketmq

    def limits(self, address: str) -> Limits:
        return self._at(address).limits(address)

    async def send(self, frame: Frame, queue: Queue, timeout_s: float) -> Sequence[Outcome]:
        try:
            return await self._at(queue.address).send(frame, queue, timeout_s)
        except NoSuchDoor:
            self._doors.lack_stream(queue.address)
            return await self._rocketmq.send(frame, queue, timeout_s)

    async def close(self) -> None:
        await self._stream.close()
        await self._rocketmq.close()

    def _at(self, address: str) -> Outbox:
        return self._stream if self._doors.has_stream(address) else self._rocketmq
