"""Progress as numbers: asked for, and set from outside."""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.log import Log
from kourou_broker.operations.journal import Journal
from kourou_broker.state import State
from kourou_broker.state.definitions import Group, Queue
from kourou_service.refusal import Refused


class Offsets:
    def __init__(self, state: State, journal: Journal, log: Log) -> None:
        self._state = state
        self._journal = journal
        self._log = log

    def committed(self, group: Group, queue: Queue) -> int | None:
        """The lowest offset that the group has not settled; None if it has no progress here."""
        progress = self._state.progress.get((group.id, queue.topic.id, queue.id))
        return None if progress is None else progress.low

    def at_time(self, queue: Queue, ms: int) -> int:
        """The offset of the first message stored at or after the time; the queue's end if there is none."""
        offset = self._log.find_time(queue.topic.id, queue.id, ms)
        return queue.next_offset if offset is None else max(offset, queue.first_offset)

    def set(self, group: Group, queue: Queue, offset: int) -> None:
        """Below is acknowledged, from there on nothing is; leases are void. Wait for the journal before the answer."""
        if not queue.first_offset <= offset <= queue.next_offset:
            raise Refused(
                definition_pb2.ILLEGAL_OFFSET,
                f"offset {offset} is outside of what the queue holds: {queue.first_offset} to {queue.next_offset}",
            )
        self._journal.require_room()
        self._journal.set_offset(group.id, queue.topic.id, queue.id, offset)
