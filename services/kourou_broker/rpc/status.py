"""What the broker says of itself."""

from collections.abc import Iterator

from kourou.protocol.kourou.broker.v1 import broker_pb2
from kourou_broker.log.log import Log
from kourou_broker.log.medium import Medium
from kourou_broker.operations.clients import Clients
from kourou_broker.operations.send import Sending
from kourou_broker.operations.traffic import Traffic
from kourou_broker.state import State
from kourou_service.door import OK


class BrokerStatus:
    def __init__(
        self,
        *,
        cluster: str,
        name: str,
        id: int,
        version: str,
        started_ms: int,
        state: State,
        log: Log,
        medium: Medium,
        clients: Clients,
        sending: Sending,
        traffic: Traffic,
    ) -> None:
        self._name = name
        self._fixed = broker_pb2.DescribeBrokerResponse(
            status=OK, cluster=cluster, name=name, id=id, version=version, started_ms=started_ms
        )
        self._state = state
        self._log = log
        self._medium = medium
        self._clients = clients
        self._sending = sending
        self._traffic = traffic

    def describe(self) -> broker_pb2.DescribeBrokerResponse:
        described = broker_pb2.DescribeBrokerResponse(
            permission=self._state.broker.permission,
            log_first_position=self._log.first_position,
            log_durable_position=self._log.durable_position,
            log_next_position=self._log.next_position,
            disk_free_bytes=self._medium.disk().free_bytes,
            disk_full=not self._log.writable_messages,
            refused_reason=self._sending.refused_reason,
            clients=len(self._clients),
            known_brokers=self._state.broker.known_brokers,
            stored_messages=self._traffic.stored,
            delivered_messages=self._traffic.delivered,
            held_messages=self._held(),
        )
        described.MergeFrom(self._fixed)
        return described

    def _held(self) -> Iterator[broker_pb2.HeldMessages]:
        timers, half = self._state.timers, self._state.half_messages.by_topic
        for topic in self._state.topics.values():
            if topic.id in timers or topic.id in half:
                yield broker_pb2.HeldMessages(
                    topic=topic.name.resource(),
                    delayed=len(timers.get(topic.id, ())),
                    half=len(half.get(topic.id, ())),
                )

    def offset_message_id(self, position: int, index: int) -> str:
        """`broker@position.index`, both in hexadecimal: names a stored message for good."""
        return f"{self._name}@{position:x}.{index:x}"
