"""The Registry service: one Register stream from each broker, kept for its life."""

import asyncio

import structlog

from kourou.protocol.kourou.registry.v1 import registry_pb2, registry_rpc
from kourou_namesrv.metrics import Counts
from kourou_namesrv.registry import Broker, Registry, UnknownSession
from kourou_namesrv.reports import RegistrationRefused
from kourou_service.door import parse
from kourou_service.engine import Engine, StreamCall

_logger = structlog.stdlib.get_logger("kourou_namesrv")


class RegistrationService:
    def __init__(self, registry: Registry, namesrv_id: str, broken_stream_grace_s: float, counts: Counts) -> None:
        self._registry = registry
        self._counts = counts
        self._namesrv_id = namesrv_id
        self._broken_stream_grace_s = broken_stream_grace_s

    def serve_on(self, engine: Engine) -> None:
        engine.stream(registry_rpc.REGISTER.path, self._register)

    async def _register(self, call: StreamCall) -> None:
        stream = _BrokerStream(self._registry, self._namesrv_id, call.peer, self._counts)
        try:
            while (frame := await call.receive()) is not None:
                answer = stream.take(parse(registry_pb2.RegisterRequest, frame))
                if answer is not None:
                    await call.send(answer.SerializeToString())
                if stream.over:
                    return
        finally:
            broker = stream.broke()
            if broker is not None:
                self._broken(broker)

    def _broken(self, broker: Broker) -> None:
        self._counts.broken_streams += 1
        _logger.warning("a broker's stream broke", broker=broker.key.name, id=broker.key.id)
        loop = asyncio.get_running_loop()
        loop.call_later(self._broken_stream_grace_s, self._registry.hide_from_writers, broker)


class _BrokerStream:
    """One stream's way through the protocol: frames in, answers out."""

    def __init__(self, registry: Registry, namesrv_id: str, peer: str, counts: Counts) -> None:
        self._registry = registry
        self._counts = counts
        self._namesrv_id = namesrv_id
        self._log = _logger.bind(peer=peer)
        self._session = 0
        self.over = False

    def take(self, request: registry_pb2.RegisterRequest) -> registry_pb2.RegisterResponse | None:
        """The answer to a frame, if it gets one."""
        now_s = asyncio.get_running_loop().time()
        try:
            return self._take(request, now_s)
        except UnknownSession:
            return registry_pb2.RegisterResponse(resync=registry_pb2.Resync())
        except RegistrationRefused as refused:
            self._counts.refused_registrations += 1
            self._log.warning("a registration is refused", reason=str(refused))
            self.over = True
            return registry_pb2.RegisterResponse(refused=registry_pb2.Refused(reason=str(refused)))

    def broke(self) -> Broker | None:
        """The stream is over; returns the broker if it has no other stream and did not say goodbye."""
        return self._registry.disconnected(self._session)

    def _take(self, request: registry_pb2.RegisterRequest, now_s: float) -> registry_pb2.RegisterResponse | None:
        match request.WhichOneof("report"):
            case "full_state":
                return self._full_state(request.full_state, now_s)
            case "change":
                self._registry.change(self._session, request.change, now_s)
            case "heartbeat":
                self._registry.heartbeat(self._session, now_s)
            case "goodbye":
                self._counts.goodbyes += 1
                self._log.info("a broker says goodbye")
                self._registry.goodbye(self._session)
                self.over = True
            case _:
                raise RegistrationRefused("a frame with nothing in it, or from a newer version")
        return None

    def _full_state(self, state: registry_pb2.FullState, now_s: float) -> registry_pb2.RegisterResponse:
        session = self._registry.register(state, now_s)
        self._registry.disconnected(self._session)
        self._counts.accepted_registrations += 1
        self._session = session
        self._log = self._log.bind(broker=state.broker_name, id=state.broker_id)
        self._log.info("a broker registered", topics=len(state.topics), version=state.version)
        return registry_pb2.RegisterResponse(accepted=registry_pb2.Accepted(namesrv_id=self._namesrv_id))
