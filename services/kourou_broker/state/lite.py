"""Lite topics: the small topics inside a topic of type LITE. Each is a queue with a name."""

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kourou_broker.state.definitions import Queue

FIRST_LITE_QUEUE = 1 << 20
"""The id of a topic's first lite queue: beyond all ordinary ones."""


class LiteTopic:
    __slots__ = ("last_stored_ms", "name", "queue")

    def __init__(self, name: str, queue: "Queue", last_stored_ms: int) -> None:
        self.name = name
        self.queue = queue
        self.last_stored_ms = last_stored_ms
        """As far as the log's record of the lite topic tells: when it was made, or a later time."""


class LiteTopics:
    """The lite topics of one topic.

    A lite topic that goes leaves its queue to another one, whose offsets go on where those of the former ended: so no
    offset, and no receipt handle, ever means two messages, and the log's indexes do not grow with each new name.
    """

    __slots__ = ("by_name", "by_queue", "free", "queues")

    def __init__(self) -> None:
        self.by_name: dict[str, LiteTopic] = {}
        self.by_queue: dict[int, LiteTopic] = {}
        self.queues: list[Queue] = []
        self.free: list[int] = []
        """The ids of queues without a name, a heap."""

    def queue(self, id_: int) -> "Queue | None":
        number = id_ - FIRST_LITE_QUEUE
        return self.queues[number] if 0 <= number < len(self.queues) else None

    @property
    def next_queue(self) -> int:
        """The id of the queue that the next new lite topic takes."""
        return self.free[0] if self.free else FIRST_LITE_QUEUE + len(self.queues)

    def add_queue(self, queue: "Queue") -> None:
        """The next one, without a name."""
        assert queue.id == FIRST_LITE_QUEUE + len(self.queues), queue.id
        self.queues.append(queue)
        heappush(self.free, queue.id)

    def name(self, queue: "Queue", name: str, last_stored_ms: int) -> bool:
        """Gives a queue to a lite topic, or tells of the one that has it; whether the lite topic is new."""
        known = self.by_name.get(name)
        if known is not None:
            known.last_stored_ms = last_stored_ms
            return False
        self._take(queue.id)
        self.by_name[name] = self.by_queue[queue.id] = LiteTopic(name, queue, last_stored_ms)
        return True

    def drop(self, name: str) -> "Queue | None":
        """The lite topic is no more; -> the queue it had."""
        known = self.by_name.pop(name, None)
        if known is None:
            return None
        queue = known.queue
        del self.by_queue[queue.id]
        queue.first_offset = queue.next_offset
        queue.carried.clear()
        heappush(self.free, queue.id)
        return queue

    def _take(self, queue: int) -> None:
        if self.free[0] == queue:
            heappop(self.free)
        else:
            self.free.remove(queue)
            heapify(self.free)
