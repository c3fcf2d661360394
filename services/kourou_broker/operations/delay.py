"""Delayed messages come in: checked, and held until their time."""

from collections.abc import Sequence

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp
from kourou_broker.operations.firing import Firing
from kourou_broker.operations.journal import Journal, OnStored, Stored
from kourou_broker.operations.message import stored_form
from kourou_broker.operations.traffic import Traffic
from kourou_broker.state.definitions import Topic
from kourou_service.recall_handle import RecallHandle
from kourou_service.refusal import Refused
from kourou_service.wire_times import milliseconds

_DAY_MS = 24 * 3_600_000


class Delaying:
    def __init__(
        self, journal: Journal, firing: Firing, traffic: Traffic, broker: str, *, max_delay_days: float
    ) -> None:
        """`broker` is this one's name: recall handles say who has a message."""
        self._journal = journal
        self._firing = firing
        self._traffic = traffic
        self._broker = broker
        self._max_delay_days = max_delay_days

    def store(self, topic: Topic, messages: Sequence[definition_pb2.Message], now_ms: int, on_stored: OnStored) -> None:
        """Raises Refused. Messages that are all due by now go into a queue at once, and have no recall handle."""
        systems = [message.system_properties for message in messages]
        ids = [system.message_id for system in systems]
        dues = [_due_ms(system.delivery_timestamp) for system in systems]
        parts = [stored_form(message, now_ms, definition_pb2.DELAY) for message in messages]
        for due_ms in dues:
            self._check(due_ms, now_ms)
        rows, bodies = [part.row for part in parts], [part.body for part in parts]
        if all(due_ms <= now_ms for due_ms in dues):
            self._journal.store(topic, definition_pb2.DELAY, rows, bodies, on_stored)
            return

        def on_held(where: Stored | Refused) -> None:
            if isinstance(where, Stored):
                where = where._replace(recall_handles=self._handles(topic, dues, ids, where))
                self._firing.expect(min(dues))
                held = self._traffic.of_delays(topic.id).held
                for due_ms in dues:
                    held.observe(max(0, due_ms - now_ms) / 1000)
            on_stored(where)

        self._journal.hold(topic, definition_pb2.DELAY, dues, rows, bodies, on_held)

    def _check(self, due_ms: int, now_ms: int) -> None:
        if due_ms <= 0:
            raise Refused(definition_pb2.ILLEGAL_DELIVERY_TIME, "the delivery timestamp lies before 1970")
        if due_ms > now_ms + self._max_delay_days * _DAY_MS:
            raise Refused(
                definition_pb2.ILLEGAL_DELIVERY_TIME,
                f"the message is to be delivered in {(due_ms - now_ms) / _DAY_MS:.1f} days; this broker holds messages"
                f" for {self._max_delay_days:g} days at most (setting max_delay_days)",
            )

    def _handles(self, topic: Topic, dues: Sequence[int], ids: Sequence[str], where: Stored) -> tuple[str, ...]:
        name = str(topic.name)
        return tuple(
            str(RecallHandle(name, self._broker, due_ms, message_id, where.position, index))
            for index, (due_ms, message_id) in enumerate(zip(dues, ids, strict=True), where.place)
        )


def _due_ms(time: Timestamp) -> int:
    """Rounded up: never before its time. Raises Refused."""
    return milliseconds(time, definition_pb2.ILLEGAL_DELIVERY_TIME) + (time.nanos % 1_000_000 > 0)
