"""Messages that travel together, and those who wait for what becomes of them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from operator import attrgetter
from typing import Any, NamedTuple

from kourou.batch import Encoded, encode
from kourou.codecs import Compression
from kourou.course import Course
from kourou.errors import KourouError
from kourou.message import Message, MessageType
from kourou.message_id import message_id_after, new_message_ids
from kourou.results import Outcome

_SIZE = attrgetter("size_bytes")
_BLOCK_COUNT = 4096


class Kind(NamedTuple):
    """Messages of one kind may travel together."""

    topic: str
    type: MessageType
    of: str | int | None = None
    """The message group, lite topic or priority."""

    @property
    def in_order(self) -> bool:
        return self.type is MessageType.FIFO or self.type is MessageType.LITE


def kind_of(message: Message) -> Kind:
    of = message.message_group or message.lite_topic
    return Kind(message.topic, message.type, message.priority if of is None else of)


AnyFuture = asyncio.Future[Any] | concurrent.futures.Future[Any]


class Limits(NamedTuple):
    """Of a request."""

    max_count: int
    max_bytes: int
    """A message that is larger travels alone."""


class Single:
    """A message, and who waits for its result."""

    __slots__ = ("deadline_s", "future", "message", "timeout_s")

    has_rest = False
    """It leaves as a whole."""

    def __init__(self, message: Message, future: AnyFuture, timeout_s: float, deadline_s: float) -> None:
        self.message = message
        self.future = future
        self.timeout_s = timeout_s
        self.deadline_s = deadline_s
        """In the loop's time; it counts the wait for others."""

    @property
    def is_over(self) -> bool:
        """Cancelled, or too late."""
        return self.future.done()


class Bulk:
    """Messages of one kind, of which each frame takes as many as it can, and who waits for the outcomes of all."""

    def __init__(self, messages: Sequence[Message], future: AnyFuture, timeout_s: float) -> None:
        self.messages = messages
        self.future = future
        self.timeout_s = timeout_s
        """Of each frame, from when it leaves."""
        self.failure: KourouError | None = None
        self._outcomes: dict[int, Sequence[Outcome]] = {}
        self._left = 0
        self._open = len(messages)
        self._block = range(0)
        self._ends: list[int] = []

    @property
    def has_rest(self) -> bool:
        return self._left < len(self.messages)

    @property
    def is_over(self) -> bool:
        """Cancelled, or given up."""
        return self.future.done() or not self.has_rest

    def next_share(self, max_count: int, max_bytes: int) -> tuple[int, int]:
        """From which message on, and how many of the next ones fit: none, if the first is too large."""
        start = self._left
        if start not in self._block:
            self._measure(start)
        before = self._ends[start - self._block.start]
        stop = self._block.start + bisect_right(self._ends, before + max(0, max_bytes)) - 1
        return start, min(stop - start, max_count)

    def take(self, count: int) -> tuple[Sequence[Message], int]:
        """Of the share, so many; and how many bytes they are."""
        start, self._left = self._left, self._left + count
        place = start - self._block.start
        return self.messages[start : self._left], self._ends[place + count] - self._ends[place]

    def settle(self, start: int, outcomes: Sequence[Outcome]) -> None:
        """What became of some."""
        self._outcomes[start] = outcomes
        self._open -= len(outcomes)
        if not self._open and not self.future.done():
            self.future.set_result([self._outcomes[start] for start in sorted(self._outcomes)])

    def give_up(self, error: KourouError) -> None:
        """Of what has not left yet, nothing does."""
        start, self._left = self._left, len(self.messages)
        if self._left > start:
            self.settle(start, [error] * (self._left - start))

    def _measure(self, start: int) -> None:
        """Where each message of the next block ends, counted from the block's begin."""
        block = self.messages[start : start + _BLOCK_COUNT]
        self._block = range(start, start + len(block))
        self._ends = list(accumulate(map(_SIZE, block), initial=0))


Share = tuple[Single | Bulk, int, int]
"""Of a frame, those of its messages that came together: with whom, which of a bulk is the first, how many."""


class Frame:
    """Messages of one kind on their way: a broker stores all of them, or none."""

    def __init__(
        self,
        kind: Kind,
        messages: Sequence[Message],
        shares: Sequence[Share],
        course: Course,
        *,
        deadline_s: float,
        timeout_s: float,
        first_id: str = "",
    ) -> None:
        """`deadline_s`: in the loop's time; `timeout_s`: what it was at the beginning."""
        self.kind = kind
        self.messages = messages
        self.shares = shares
        self.course = course
        self.deadline_s = deadline_s
        self.timeout_s = timeout_s
        self.first_id = first_id or new_message_ids(len(messages))
        self.born_ns = time.time_ns()
        self.address = ""
        """Of the broker that is tried now."""
        self._encoded: Encoded | None = None

    def encoded(self, compression: Compression | None) -> Encoded:
        """The same for all tries."""
        if self._encoded is None:
            self._encoded = encode(self.messages, self.first_id, self.born_ns // 1_000_000, compression)
        return self._encoded

    def part(self, places: range, course: Course) -> Frame:
        """Some of the messages, on a course of their own."""
        return Frame(
            self.kind,
            self.messages[places.start : places.stop],
            (),
            course,
            deadline_s=self.deadline_s,
            timeout_s=self.timeout_s,
            first_id=message_id_after(self.first_id, places.start),
        )


class Filling:
    """A frame that is not closed yet."""

    __slots__ = ("_deadline_s", "_limits", "_messages", "_now_s", "_shares", "_size_bytes", "_timeout_s")

    def __init__(self, limits: Limits, now_s: float) -> None:
        self._limits = limits
        self._now_s = now_s
        self._messages: list[Message] = []
        self._shares: list[Share] = []
        self._size_bytes = 0
        self._deadline_s = self._timeout_s = 0.0

    @property
    def has_room(self) -> bool:
        return len(self._messages) < self._limits.max_count

    def add(self, parcel: Single | Bulk) -> bool:
        """As much of it as fits, and the first message in any case; whether that was something."""
        if type(parcel) is Single:
            size_bytes = self._size_bytes + parcel.message.size_bytes
            if self._messages and size_bytes > self._limits.max_bytes:
                return False
            self._size_bytes = size_bytes
            self._messages.append(parcel.message)
            self._shares.append((parcel, 0, 1))
            self._keep(parcel.deadline_s, parcel.timeout_s)
            return True
        assert isinstance(parcel, Bulk)
        max_count, max_bytes = self._limits
        start, count = parcel.next_share(max_count - len(self._messages), max_bytes - self._size_bytes)
        if not count and self._messages:
            return False
        share, share_bytes = parcel.take(count or 1)
        self._size_bytes += share_bytes
        self._messages += share
        self._shares.append((parcel, start, len(share)))
        self._keep(self._now_s + parcel.timeout_s, parcel.timeout_s)
        return True

    def frame(self, kind: Kind, course: Course) -> Frame | None:
        """None, if there is nothing in it."""
        if not self._messages:
            return None
        return Frame(kind, self._messages, self._shares, course, deadline_s=self._deadline_s, timeout_s=self._timeout_s)

    def _keep(self, deadline_s: float, timeout_s: float) -> None:
        """The latest deadline and the longest time-out count."""
        if deadline_s > self._deadline_s:
            self._deadline_s = deadline_s
        if timeout_s > self._timeout_s:
            self._timeout_s = timeout_s
