"""Which messages were sent shortly before the broker's start: gathered while the log is read."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.batch import Batch
from kourou_broker.log.frame import Frame
from kourou_broker.log.section import MESSAGE_ROW
from kourou_broker.operations.journal import Stored
from kourou_broker.operations.recent_sends import RecentSends, batch_key
from kourou_broker.state import Kind, records
from kourou_broker.state.definitions import Topic
from kourou_broker.state.half_messages import TransactionId
from kourou_broker.state.timers import Place
from kourou_service.recall_handle import RecallHandle


class _Read(NamedTuple):
    """A section's messages."""

    topic: int
    sent_ms: int
    where: Stored
    tails: list[bytes]
    """Their SystemProperties: parsed only if they are still wanted at the end."""
    whens: Sequence[int] = ()
    """Of held messages, as in the record."""
    batch: str = ""
    """Of a batch: by which it is known."""


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
                self._add(_Read(section.topic, frame.stored_ms, where, list(_tails(section.payload, section.count))))
            elif section.kind == Kind.BATCH:
                where = Stored(section.queue, section.base, section.position, 0)
                key = batch_key(Batch(section.payload).headers.first_message_id, section.count)
                self._add(_Read(section.topic, frame.stored_ms, where, [], batch=key))
            elif section.kind == Kind.HELD:
                whens, _stored_ms, messages = records.read_held(section)
                tails = list(_tails(messages, section.count))
                self._add(_Read(section.topic, frame.stored_ms, Stored(-1, -1, section.position, 0), tails, whens))

    def give(self, recent: RecentSends, topics: Mapping[int, Topic], broker: str) -> None:
        """Makes them known, in the order in which they were sent. topics: by id; broker: this one's name."""
        recent.forget_before(self._unknown_before_ms)
        for read in self._read:
            topic = topics.get(read.topic)
            if topic is None:
                continue
            ids = [definition_pb2.SystemProperties.FromString(tail).message_id for tail in read.tails]
            if read.batch:
                ids = [read.batch]
            if not read.whens:
                recent.restore(read.topic, ids, read.sent_ms, read.where)
                continue
            for index, (message_id, when_ms) in enumerate(zip(ids, read.whens, strict=True)):
                where = _held(topic, broker, message_id, when_ms, Place(read.where.position, index))
                recent.restore(read.topic, [message_id], read.sent_ms, where)

    def _add(self, read: _Read) -> None:
        self._read.append(read)
        self._count += _count(read)
        while self._count > self._max_ids and len(self._read) > 1:
            oldest = self._read.popleft()
            self._count -= _count(oldest)
            self._unknown_before_ms = max(self._unknown_before_ms, oldest.sent_ms + 1)


def _count(read: _Read) -> int:
    """Of ids."""
    return len(read.tails) or 1


def _held(topic: Topic, broker: str, message_id: str, when_ms: int, place: Place) -> Stored:
    """What the sender of a held message was told."""
    where = Stored(-1, -1, place.position, place.index)
    if topic.type == definition_pb2.TRANSACTION:
        return where._replace(transaction_id=str(TransactionId(*place)))
    handle = RecallHandle(str(topic.name), broker, when_ms, message_id, place.position, place.index)
    return where._replace(recall_handles=(str(handle),))


def _tails(messages: bytes, count: int) -> Iterator[bytes]:
    """messages: the payload of a MESSAGES section."""
    at = count * MESSAGE_ROW.size
    for head, tail, _hash in MESSAGE_ROW.iter_unpack(messages[:at]):
        at += head
        yield messages[at : at + tail]
        at += tail
