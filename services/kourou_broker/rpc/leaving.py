"""BrokerAdmin: a broker leaves the cluster for good, and the others forget it."""

from collections.abc import Callable

import structlog

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_broker.membership import Membership
from kourou_broker.operations.journal import Journal
from kourou_broker.state import State
from kourou_service.door import OK, serve_unary
from kourou_service.engine import Call, Engine
from kourou_service.refusal import Refused

_logger = structlog.stdlib.get_logger("kourou_broker")


class LeavingDoor:
    def __init__(self, membership: Membership, state: State, journal: Journal, stop: Callable[[], None] | None) -> None:
        """`stop` begins a clean stop of the process; None where the broker is not alone in it."""
        self._membership = membership
        self._state = state
        self._journal = journal
        self._stop = stop

    def open(self, engine: Engine) -> None:
        serve_unary(engine, broker_rpc.FORGET_BROKER, self._forget)
        serve_unary(engine, broker_rpc.STOP_BROKER, self._stop_broker)

    async def _forget(self, request: broker_pb2.ForgetBrokerRequest, call: Call) -> broker_pb2.ForgetBrokerResponse:
        self._membership.forget(request.broker)
        await self._journal.durable()
        return broker_pb2.ForgetBrokerResponse(status=OK)

    async def _stop_broker(self, request: broker_pb2.StopBrokerRequest, call: Call) -> broker_pb2.StopBrokerResponse:
        if self._state.broker.permission != definition_pb2.NONE:
            raise Refused(
                definition_pb2.FORBIDDEN, "the broker serves clients: it is stopped only when its permissions are off"
            )
        if self._stop is None:
            raise Refused(definition_pb2.UNSUPPORTED, "this broker shares its process and cannot be stopped alone")
        _logger.info("told to stop", peer=call.peer)
        self._stop()
        return broker_pb2.StopBrokerResponse(status=OK)
