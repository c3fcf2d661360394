"""Transactions: a half message is kept out of sight until its producer commits it, or rolls it back."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.section import MESSAGE_ROW
from kourou_broker.operations.held_carrying import HeldMessage
from kourou_broker.operations.journal import Journal, OnStored, Stored
from kourou_broker.operations.message import stored_form
from kourou_broker.operations.section_reader import SectionReader
from kourou_broker.operations.slices import in_slices
from kourou_broker.operations.traffic import Traffic
from kourou_broker.state import Resolution, State, records
from kourou_broker.state.definitions import Topic
from kourou_broker.state.half_messages import HalfMessage, TransactionId
from kourou_service.clock import Clock
from kourou_service.refusal import Refused
from kourou_service.wire_times import milliseconds

_REMEMBERED_ENDS = 65_536
_FIRST_CHECK_FROM_MS = 1000
_RESOLUTIONS: dict[int, Resolution] = {
    definition_pb2.COMMIT: Resolution.COMMITTED,
    definition_pb2.ROLLBACK: Resolution.ROLLED_BACK,
}
_PAST = {
    Resolution.COMMITTED: "was committed",
    Resolution.ROLLED_BACK: "was rolled back",
    Resolution.GIVEN_UP: "was rolled back, since no producer said in time what became of it",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """When producers are asked about open transactions, and how long; and how many may be open."""

    after_ms: int
    interval_ms: int
    max_checks: int
    max_age_ms: int
    max_open: int


class Transactions:
    def __init__(
        self, state: State, journal: Journal, reader: SectionReader, traffic: Traffic, clock: Clock, limits: Limits
    ) -> None:
        self._state = state
        self._journal = journal
        self._reader = reader
        self._traffic = traffic
        self._clock = clock
        self._limits = limits
        self._ended: OrderedDict[tuple[int, TransactionId], Resolution] = OrderedDict()
        """Of the last ones, by topic id and transaction: an answer may have been lost, and is asked for again."""
        self.on_begun: Callable[[int, TransactionId], None] = lambda _topic_id, _transaction: None
        """Called when a half message is durable, with the id of its topic."""

    def begin(self, topic: Topic, messages: Sequence[definition_pb2.Message], now_ms: int, on_stored: OnStored) -> None:
        """Keeps the half message; a Store of Sending."""
        if len(messages) != 1:
            raise Refused(
                definition_pb2.BAD_REQUEST, f"a transaction has one message, and the request {len(messages)} of them"
            )
        if len(self._state.half_messages) >= self._limits.max_open:
            raise Refused(
                definition_pb2.TOO_MANY_REQUESTS,
                f"{self._limits.max_open} transactions are open on this broker, its limit: end some first",
            )
        first_check_ms = now_ms + self._first_check_after_ms(messages[0].system_properties)
        row, body = stored_form(messages[0], now_ms, definition_pb2.TRANSACTION)

        def on_held(where: Stored | Refused) -> None:
            if not isinstance(where, Refused):
                transaction = TransactionId(where.position, where.place)
                self.on_begun(topic.id, transaction)
                where = where._replace(transaction_id=str(transaction))
            on_stored(where)

        self._journal.hold(topic, definition_pb2.TRANSACTION, [first_check_ms], [row], [body], on_held)

    def _first_check_after_ms(self, system: definition_pb2.SystemProperties) -> int:
        """As the sender wishes, if that makes sense."""
        if not system.HasField("orphaned_transaction_recovery_duration"):
            return self._limits.after_ms
        asked_ms = milliseconds(system.orphaned_transaction_recovery_duration)
        return min(max(asked_ms, _FIRST_CHECK_FROM_MS), self._limits.max_age_ms)

    async def end(self, topic: Topic, transaction_id: str, message_id: str, resolution: int) -> None:
        """The producer says how its transaction ended; durable on return. Unspecified: it does not know yet.

        Raises Refused when there is no such open transaction, or its message cannot enter a queue now: then it stays
        open. Who repeats what was done before is told that it was.
        """
        if resolution not in definition_pb2.TransactionResolution.values():
            raise Refused(definition_pb2.BAD_REQUEST, f"unknown resolution {resolution} of a transaction")
        wanted = _RESOLUTIONS.get(resolution)
        transaction = TransactionId.parse(transaction_id)
        if transaction is None:
            raise _refused(transaction_id, "is not one of this broker's")
        half = self._state.half_messages.get(topic.id, transaction)
        if half is None:
            self._check_repeated(topic, transaction, wanted)
        elif half.message_id != message_id:
            raise Refused(
                definition_pb2.ILLEGAL_MESSAGE_ID,
                f"the message of transaction {transaction_id} has another id than {message_id[:64]!r}",
            )
        elif wanted == Resolution.COMMITTED:
            await self._commit(topic, transaction, half)
        elif wanted == Resolution.ROLLED_BACK:
            self._close(topic.id, transaction, wanted)
            self._traffic.of_transactions(topic.id).rolled_back += 1
        if wanted is not None:
            await self._journal.durable()

    def give_up(self, topic_id: int, transaction: TransactionId) -> None:
        """Rolls an open transaction back, since nobody ends it."""
        self._close(topic_id, transaction, Resolution.GIVEN_UP)
        self._traffic.of_transactions(topic_id).given_up += 1

    async def held_below(self, boundary: int) -> AsyncIterator[HeldMessage]:
        """The half messages that lie below a log position; a HeldBelow of HeldCarrying."""
        for topic_id, transactions in list(self._state.half_messages.by_topic.items()):
            async for transaction, half in in_slices(list(transactions.items())):
                if half.place.position < boundary:
                    yield HeldMessage(definition_pb2.TRANSACTION, topic_id, half.next_check_ms, transaction, half.place)

    async def _commit(self, topic: Topic, transaction: TransactionId, half: HalfMessage) -> None:
        message = await self._reader.half(half)
        if self._state.half_messages.get(topic.id, transaction) is not half:  # somebody ended it meanwhile
            self._check_repeated(topic, transaction, Resolution.COMMITTED)
            return
        if message is None:
            raise Refused(definition_pb2.MESSAGE_NOT_FOUND, f"the half message {half.message_id} cannot be read")
        row = MESSAGE_ROW.pack(len(message.head), len(message.tail), message.tag_hash)
        body = message.head + message.tail
        # The copy in a queue and the end are one frame: after a crash both are there, or neither.
        self._journal.require_room()
        self._journal.store(topic, definition_pb2.TRANSACTION, [row], [body], lambda _stored: None)
        self._close(topic.id, transaction, Resolution.COMMITTED)
        open_ms = max(0, self._clock.now_ms() - half.stored_ms)
        self._traffic.of_transactions(topic.id).committed.observe(open_ms / 1000)

    def _close(self, topic_id: int, transaction: TransactionId, resolution: Resolution) -> None:
        self._journal.require_room()
        self._journal.emit(records.transaction_end(topic_id, [transaction], resolution))
        self._ended[topic_id, transaction] = resolution
        if len(self._ended) > _REMEMBERED_ENDS:
            self._ended.popitem(last=False)

    def _check_repeated(self, topic: Topic, transaction: TransactionId, wanted: Resolution | None) -> None:
        ended = self._ended.get((topic.id, transaction))
        if ended is None:
            raise _refused(str(transaction), f"is not open in topic {topic.name}: it has ended, or never was")
        if ended != wanted:
            raise _refused(str(transaction), _PAST[ended])


def _refused(transaction_id: str, why: str) -> Refused:
    return Refused(definition_pb2.INVALID_TRANSACTION_ID, f"transaction {transaction_id[:64]!r} {why}")
