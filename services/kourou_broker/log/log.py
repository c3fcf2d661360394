"""The log of a shard."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kourou_broker.log.frame import Frame
from kourou_broker.log.medium import Medium
from kourou_broker.log.options import LogOptions
from kourou_broker.log.section import Entry, Section
from kourou_broker.log.worker import Worker


class Appended(NamedTuple):
    """Where a frame went."""

    position: int
    end: int
    section_positions: list[int]


class SegmentInfo(NamedTuple):
    """A segment: it holds the log from `base` to before `end`. The times are 0 while it holds no frame."""

    base: int
    end: int
    first_stored_ms: int
    last_stored_ms: int
    sealed: bool


class Log:
    """See the package's docstring. One loop owns it."""

    on_durable: Callable[[int], None] | None
    on_failure: Callable[[BaseException], None] | None
    next_position: int
    durable_position: int  # with flush = "async": what was written
    synced_position: int
    first_position: int
    last_stored_ms: int

    @classmethod
    def recover(
        cls,
        medium: Medium,
        worker: Worker,
        options: LogOptions,
        start: int,
        apply: Callable[[Frame], None],
        on_progress: Callable[[int, int], None] | None = None,
        *,
        reader: Worker | None = None,
        background: Worker | None = None,
    ) -> "Log":
        """To be called on the running loop. on_progress(position, of): how far it is."""
        raise NotImplementedError

    @property
    def pending_bytes(self) -> int:
        raise NotImplementedError

    @property
    def writable_messages(self) -> bool:
        raise NotImplementedError

    def append(self, sections: Sequence[Section], stored_ms: int) -> Appended:
        raise NotImplementedError

    def find(self, topic: int, queue: int, offset: int) -> Entry | None:
        raise NotImplementedError

    def find_time(self, topic: int, queue: int, ms: int) -> int | None:
        raise NotImplementedError

    def forget(self, topic: int) -> None:
        """The topic was deleted: nobody asks for its queues any more."""
        raise NotImplementedError

    def cached(self, position: int, length: int) -> bytes | None:
        raise NotImplementedError

    async def read(self, position: int, length: int) -> bytes:
        raise NotImplementedError

    def segments(self) -> list[SegmentInfo]:
        raise NotImplementedError

    def first_offsets(self, position: int) -> dict[tuple[int, int], int]:
        """`position` is the base of a segment."""
        raise NotImplementedError

    async def drop_before(self, position: int) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        """The medium and the workers are the caller's to close."""
        raise NotImplementedError
