"""A consumer that waits for messages, and what it gets."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kourou_broker.operations.filters import Filter
from kourou_broker.operations.matching import MAX_BATCH_BYTES
from kourou_broker.operations.section_reader import StoredMessage
from kourou_broker.state.definitions import Queue
from kourou_broker.state.records import Lease


class Delivery(NamedTuple):
    queue: Queue
    message: StoredMessage
    lease: Lease


@dataclass(slots=True, eq=False)
class Poll:
    client_id: str
    filter: Filter
    batch_size: int
    invisible_ms: int
    auto_renew: bool
    attempt_id: str
    queue: int | None
    """The only queue it asks; None: any of the topic."""
    expired: bool = False
    """Its time is over, but it is being served and so still gets an answer."""
    waited: bool = False
    """There was nothing for it at first."""
    answer: asyncio.Future[list[Delivery]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def in_haste(self) -> bool:
        return self.expired or self.answer.done()

    def end(self, deliveries: Sequence[Delivery] = ()) -> None:
        if not self.answer.done():
            self.answer.set_result(list(deliveries))


class Batch:
    """What goes into one answer, and the room that is left in it."""

    __slots__ = ("deliveries", "room", "room_bytes")

    def __init__(self, size: int) -> None:
        self.deliveries: list[Delivery] = []
        self.room = size
        self.room_bytes = MAX_BATCH_BYTES

    @property
    def full(self) -> bool:
        return self.room <= 0 or self.room_bytes <= 0

    def add(self, deliveries: Sequence[Delivery]) -> None:
        self.deliveries += deliveries
        self.room -= len(deliveries)
        self.room_bytes -= sum(len(delivery.message.head) for delivery in deliveries)
