"""Messages whose order matters: those of one message group, or of one lite topic."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from kourou.coalescer import Coalescer, Limits
from kourou.course import OrderedCourse
from kourou.delivery import Delivery
from kourou.errors import InvalidRequest, KourouError, TimeoutExceeded
from kourou.message import SendResult
from kourou.outbox import MAX_PARCEL_BYTES, MAX_PARCEL_COUNT
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2

# One request of a group at a time: the next one leaves when nothing of the one before can come after it.
_LINE_LIMITS = Limits(max_in_flight=1, max_count=MAX_PARCEL_COUNT, max_bytes=MAX_PARCEL_BYTES)

_GRACE_S = 0.2
"""Over the time-out: what the request itself comes to says more than that nothing came."""


@dataclass(frozen=True, slots=True)
class _Load:
    messages: Sequence[v2.Message]
    deadline_s: float
    """In the loop's time."""

    @property
    def count(self) -> int:
        return len(self.messages)

    @property
    def size_bytes(self) -> int:
        return sum(len(message.body) for message in self.messages)


Line = Coalescer[_Load, list[SendResult]]


class Lines:
    """A line for each group that is being sent to: its messages leave in the order of the calls, over all retries."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._lines: dict[tuple[str, str], Line] = {}

    async def send(self, topic: str, group: str, messages: Sequence[v2.Message], timeout_s: float) -> list[SendResult]:
        """The time-out includes the wait for older messages of the group."""
        key = topic, group
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Coalescer(
                partial(self._deliver, key), _LINE_LIMITS, on_idle=partial(self._lines.pop, key, None)
            )
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline_s + _GRACE_S):
                return await line.submit(_Load(messages, deadline_s))
        except TimeoutExceeded:
            raise
        except TimeoutError:
            text = f"{group!r} of topic {topic}: not stored in time behind older messages; it may be stored or not"
            raise TimeoutExceeded(text) from None

    async def close(self) -> None:
        await asyncio.gather(*(line.close() for line in self._lines.values()))

    async def _deliver(self, key: tuple[str, str], loads: list[_Load]) -> Sequence[list[SendResult] | Exception]:
        try:
            return await self._together(key, loads)
        except InvalidRequest as error:
            if len(loads) == 1:
                return [error]
        # One of them is at fault, and the broker stored none: the others must not suffer, and keep their order.
        return [await self._alone(key, load) for load in loads]

    async def _alone(self, key: tuple[str, str], load: _Load) -> list[SendResult] | Exception:
        try:
            return (await self._together(key, [load]))[0]
        except KourouError as error:
            return error

    async def _together(self, key: tuple[str, str], loads: list[_Load]) -> list[list[SendResult]]:
        messages = [message for load in loads for message in load.messages]
        timeout_s = max(load.deadline_s for load in loads) - asyncio.get_running_loop().time()
        results = iter(await self._delivery.deliver(OrderedCourse(*key), messages, timeout_s, sort=None))
        return [[next(results) for _ in load.messages] for load in loads]
