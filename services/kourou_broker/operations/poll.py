"""A consumer that waits for messages, and what it gets."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kourou_broker.operations.filters import Filter
from kourou_broker.operations.matching import MAX_BATCH_BYTES
from kourou_broker.operations.section_reader import StoredMessage, size_of
from kourou_broker.state.definitions import Queue
from kourou_broker.state.records import Lease


class Delivery(NamedTuple):
    """Messages of a queue under one lease."""

    queue: Queue
    messages: Sequence[StoredMessage]
    lease: Lease


@dataclass(slots=True, eq=False)
class Poll:
    client_id: str
    filter: Filter
    batch_size: int
    invisible_ms: int
    auto_renew: bool
    attempt_id: str
    queues: Collection[int] | None
    """The only queues it asks; None: all of the topic."""
    follows: bool = False
    """It asks the queues that belong to its client, and ends without messages when these are others."""
    takes_runs: bool = False
    """Messages of a batch may come in one piece."""
    room_bytes: int = MAX_BATCH_BYTES
    expired: bool = False
    """Its time is over, but it is being served and so still gets an answer."""
    waited: bool = False
    """There was nothing for it at first."""
    answer: asyncio.Future[list[Delivery]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def takes_all_in_runs(self) -> bool:
        return self.takes_runs and self.filter.all

    @property
    def in_haste(self) -> bool:
        return self.expired or self.answer.done()

    def end(self, deliveries: Sequence[Delivery] = ()) -> None:
        if not self.answer.done():
            self.answer.set_result(list(deliveries))


class Batch:
    """What goes into one answer, and the room that is left in it."""

    __slots__ = ("deliveries", "room", "room_bytes")

    def __init__(self, room: int, room_bytes: int) -> None:
        self.deliveries: list[Delivery] = []
        self.room = room
        self.room_bytes = room_bytes

    @property
    def full(self) -> bool:
        return self.room <= 0 or self.room_bytes <= 0

    def add(self, delivery: Delivery) -> None:
        if delivery.messages:  # else a filter left all of them out
            self.deliveries.append(delivery)
            self.room -= len(delivery.messages)
            self.room_bytes -= size_of(delivery.messages)
