"""Which messages were sent shortly before the broker's start: gathered while the log is read."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.frame import Frame
from kourou_broker.log.section import MESSAGE_ROW, Section
from kourou_broker.operations.journal import Stored
from kourou_broker.operations.recent_sends import RecentSends
from kourou_broker.state import Kind


class _Read(NamedTuple):
    """A section's messages."""

    topic: int
    sent_ms: int
    where: Stored
    tails: list[bytes]
    """Their SystemProperties: parsed only if they are still wanted at the end."""


class RecoveredSends:
    def __init__(self, *, from_ms: int, max_ids: int, whole_log: bool, now_ms: int) -> None:
        """Only frames stored from then on count. whole_log: what is read begins with the first record ever."""
        self._from_ms = from_ms
        self._max_ids = max_ids
        self._read: deque[_Read] = deque()
        self._count = 0
        self._unknown_before_ms = 0 if whole_log else now_ms
        self._begun = whole_log

    def add(self, frame: Frame) -> None:
        if not self._begun:
            self._begun = True
            self._unknown_before_ms = frame.stored_ms
        if frame.stored_ms < self._from_ms:
            return
        for section in frame.sections:
            if section.kind == Kind.MESSAGES:
                where = Stored(section.queue, section.base, section.position, 0)
                self._add(_Read(section.topic, frame.stored_ms, where, list(_tails(section))))

    def give(self, recent: RecentSends) -> None:
        """Makes them known, in the order in which they were sent."""
        recent.forget_before(self._unknown_before_ms)
        for read in self._read:
            parsed = (definition_pb2.SystemProperties.FromString(tail) for tail in read.tails)
            recent.restore(read.topic, [system.message_id for system in parsed], read.sent_ms, read.where)

    def _add(self, read: _Read) -> None:
        self._read.append(read)
        self._count += len(read.tails)
        while self._count > self._max_ids and len(self._read) > 1:
            oldest = self._read.popleft()
            self._count -= len(oldest.tails)
            self._unknown_before_ms = max(self._unknown_before_ms, oldest.sent_ms + 1)


def _tails(section: Section) -> Iterator[bytes]:
    at = section.count * MESSAGE_ROW.size
    for head, tail, _hash in MESSAGE_ROW.iter_unpack(section.payload[:at]):
        at += head
        yield section.payload[at : at + tail]
        at += tail
