"""What the brokers say of messages that they have stored."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, overload

from kourou.errors import KourouError, ServerFailure
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.stream.v1 import stream_pb2
from kourou.route import Queue


@dataclass(frozen=True, slots=True)
class SendResult:
    """A message that the broker has stored, as durably as the broker is set to."""

    message_id: str
    """The producer's id; the same through all retries and deliveries."""
    offset_message_id: str | None
    """Where the broker stored it; None from brokers that do not say."""
    topic: str
    broker: str
    queue_id: int
    """The broker chooses it. -1 while the message is in no queue: delayed, or of an open transaction."""
    offset: int
    """The position in its queue; -1 as above."""
    recall_handle: str | None = None
    """Of a delayed message: `Producer.recall` takes it back."""
    transaction_id: str | None = None
    """Of a message in a transaction."""


Outcome = SendResult | KourouError
"""What became of a message."""


class _Results(Sequence[SendResult]):
    """As a list of results, each made when it is looked at: who sends a million messages looks at few."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: int) -> SendResult: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SendResult]: ...
    def __getitem__(self, index: int | slice) -> SendResult | Sequence[SendResult]:
        if isinstance(index, slice):
            return Part(self, range(len(self))[index])
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"there are {len(self)} results, none with index {index}")
        return self._at(place)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (list, _Results)) and list(self) == list(other)  # pyright: ignore[reportUnknownArgumentType]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<results of {len(self)} messages>" if len(self) > 8 else repr(list(self))

    def _at(self, place: int) -> SendResult:
        raise NotImplementedError


class _Open:
    """A result that is being filled in: of the layout of SendResult, which its class becomes. See kourou.message."""

    __slots__ = tuple(SendResult.__dataclass_fields__)


class Stored(_Results):
    """Of the messages of one frame, by what the broker answered."""

    __slots__ = (
        "_broker",
        "_count",
        "_first_number",
        "_id_prefix",
        "_places",
        "_recall_handles",
        "_topic",
        "_transaction_ids",
    )

    def __init__(self, first_id: str, count: int, queue: Queue, answer: stream_pb2.PublishResponse) -> None:
        """`queue`: any of the broker. Raises ServerFailure for an answer that does not fit so many messages."""
        self._id_prefix, self._first_number = first_id[:-8], int(first_id[-8:], 16)
        self._count = count
        self._topic, self._broker = queue.topic, queue.broker
        self._places = [(place.queue, place.offset, place.position, place.index) for place in answer.places]
        self._recall_handles = list(answer.recall_handles)
        self._transaction_ids = list(answer.transaction_ids)
        if len(self._transaction_ids) == 1:
            self._transaction_ids *= count
        columns = (self._recall_handles, self._transaction_ids)
        if len(self._places) not in (1, count) or any(len(column) not in (0, count) for column in columns):
            text = f"{queue.broker} answered {count} messages with {len(self._places)} places"
            raise ServerFailure(v2.INTERNAL_ERROR, text)

    def __len__(self) -> int:
        return self._count

    def _at(self, place: int) -> SendResult:
        if len(self._places) == 1:
            queue_id, offset, position, index = self._places[0]
            offset += place
            index += place
        else:
            queue_id, offset, position, index = self._places[place]
        result: Any = _Open()
        result.message_id = f"{self._id_prefix}{self._first_number + place:08X}"
        result.offset_message_id = f"{self._broker}@{position:x}.{index:x}"
        result.topic = self._topic
        result.broker = self._broker
        result.queue_id = queue_id
        result.offset = offset if queue_id >= 0 else -1
        result.recall_handle = self._recall_handles[place] or None if self._recall_handles else None
        result.transaction_id = self._transaction_ids[place] or None if self._transaction_ids else None
        result.__class__ = SendResult
        return result


class Part(_Results):
    """Some of other results."""

    __slots__ = ("_places", "_whole")

    def __init__(self, whole: _Results, places: range) -> None:
        self._whole = whole
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def _at(self, place: int) -> SendResult:
        return self._whole[self._places[place]]


class Joined(_Results):
    """The results of several frames, one behind the other."""

    __slots__ = ("_count", "_ends", "_parts")

    def __init__(self, parts: Sequence[Sequence[SendResult]]) -> None:
        self._parts = parts
        self._count = sum(map(len, parts))
        self._ends: list[int] = []

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[SendResult]:
        for part in self._parts:
            yield from part

    def _at(self, place: int) -> SendResult:
        self._ends = self._ends or list(accumulate(map(len, self._parts)))
        which = bisect_right(self._ends, place)
        return self._parts[which][place - (self._ends[which - 1] if which else 0)]


def are_stored(outcomes: Sequence[Outcome]) -> bool:
    """All of them, as can be told without a look at each."""
    return isinstance(outcomes, _Results)
