"""Half messages: those of open transactions. No consumer sees one before its producer says that it is committed."""

from collections.abc import Iterator
from dataclasses import dataclass

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.log.section import MESSAGE_ROW, Section
from kourou_broker.state import records
from kourou_broker.state.timers import Place


class TransactionId(Place):
    """Where the half message was first stored. It names the transaction for good, also when the message was moved."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"{self.position:016X}{self.index:08X}"

    @classmethod
    def parse(cls, text: str) -> "TransactionId | None":
        """None if the text is no transaction id."""
        if len(text) != 24:
            return None
        try:
            parsed = cls(int(text[:16], 16), int(text[16:], 16))
        except ValueError:
            return None
        return parsed if str(parsed) == text else None


@dataclass(slots=True, eq=False)
class HalfMessage:
    place: Place
    """Where it is now."""
    message_id: str
    stored_ms: int
    next_check_ms: int
    checks: int = 0
    """How often a producer was asked."""


class HalfMessages:
    """The open transactions, by topic id."""

    def __init__(self) -> None:
        self.by_topic: dict[int, dict[TransactionId, HalfMessage]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.by_topic.values()))

    def __iter__(self) -> Iterator[tuple[int, TransactionId, HalfMessage]]:
        """Topic id, transaction, its message."""
        for topic, transactions in self.by_topic.items():
            for transaction, half in transactions.items():
                yield topic, transaction, half

    def get(self, topic: int, transaction: TransactionId) -> HalfMessage | None:
        """None if there is no such transaction, or it has ended."""
        return self.by_topic.get(topic, {}).get(transaction)

    def add(self, section: Section, position: int) -> None:
        """The messages of a HELD section of transactions."""
        whens, stored_ms, messages = records.read_held(section)
        transactions = self.by_topic.setdefault(section.topic, {})
        for index, message_id in enumerate(_message_ids(messages, section.count)):
            transaction = TransactionId(position, index)
            transactions[transaction] = HalfMessage(transaction, message_id, stored_ms[index], whens[index])

    def carried(self, section: Section, position: int) -> None:
        """Copies of half messages, by a HELD_CARRIED section; those of ended transactions mean nothing."""
        for index, origin in enumerate(records.read_origins(section)):
            half = self.get(section.topic, TransactionId(*origin))
            if half is not None:
                half.place = Place(position, index)

    def checked(self, topic: int, transaction: TransactionId, next_check_ms: int) -> None:
        half = self.get(topic, transaction)
        if half is not None:
            half.checks += 1
            half.next_check_ms = next_check_ms

    def end(self, topic: int, transaction: TransactionId) -> None:
        transactions = self.by_topic.get(topic, {})
        transactions.pop(transaction, None)
        if not transactions:
            self.by_topic.pop(topic, None)

    def forget_topic(self, topic: int) -> None:
        self.by_topic.pop(topic, None)

    def to_snapshot(self) -> list[record_pb2.HalfMessage]:
        return [
            record_pb2.HalfMessage(
                transaction_id=str(transaction),
                topic=topic,
                position=half.place.position,
                index=half.place.index,
                message_id=half.message_id,
                stored_ms=half.stored_ms,
                checks=half.checks,
                next_check_ms=half.next_check_ms,
            )
            for topic, transaction, half in self
        ]

    def restore(self, saved: record_pb2.HalfMessage) -> None:
        transaction = TransactionId.parse(saved.transaction_id)
        assert transaction is not None, saved.transaction_id
        self.by_topic.setdefault(saved.topic, {})[transaction] = HalfMessage(
            Place(saved.position, saved.index), saved.message_id, saved.stored_ms, saved.next_check_ms, saved.checks
        )


def _message_ids(messages: bytes, count: int) -> Iterator[str]:
    """messages: in the form of a MESSAGES section's payload."""
    end = count * MESSAGE_ROW.size
    for head, tail, _hash in MESSAGE_ROW.iter_unpack(messages[:end]):
        start = end + head
        end = start + tail
        yield definition_pb2.SystemProperties.FromString(messages[start:end]).message_id
