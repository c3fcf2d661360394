"""Progress as numbers: asked for, and set from outside."""

from collections.abc import Sequence

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.log.log import Log
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.slices import in_slices
from kourou_broker.state import State, records
from kourou_broker.state.definitions import Group, Queue, Topic
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

    def set(self, group: Group, targets: Sequence[tuple[Queue, int]]) -> None:
        """Below each offset all is acknowledged, from there on nothing is; leases are void. All queues or none.

        Wait for the journal before the answer. Raises Refused.
        """
        for queue, offset in targets:
            if not queue.first_offset <= offset <= queue.next_offset:
                raise Refused(
                    definition_pb2.ILLEGAL_OFFSET,
                    f"offset {offset} is outside of what queue {queue.id} holds: "
                    f"{queue.first_offset} to {queue.next_offset}",
                )
        self._journal.require_room()
        for queue, offset in targets:
            self._journal.set_offset(group.id, queue.topic.id, queue.id, offset)

    async def begin(self, group: Group, topic: Topic) -> None:
        """The group reads the topic: if it never has before, it starts where its definition says.

        That is recorded for all queues at once, so that those which come later are known: in them it misses nothing.
        What has no progress is read from its first message, so a start there needs no record. In lite topics the
        subscriptions say where to start.
        """
        definition = group.definition
        if definition.start not in _ELSEWHERE or topic.lite is not None or self._has_begun(group, topic):
            return
        places: list[tuple[Queue, int]] = []
        async for queue in in_slices(list(topic.queues)):
            at_time = definition.start == record_pb2.START_TIME
            places.append((queue, self.at_time(queue, definition.start_ms) if at_time else queue.next_offset))
        if not self._has_begun(group, topic):
            self._journal.emit(*(records.offset(group.id, topic.id, queue.id, place) for queue, place in places))

    def _has_begun(self, group: Group, topic: Topic) -> bool:
        return any(True for _progress in self._state.progress_of(group, topic))


_ELSEWHERE = frozenset((record_pb2.START_LAST, record_pb2.START_TIME))
