"""grpc.health.v1.Health on any engine: Check and Watch, with a status for each service.

The status of the process as a whole goes by the name "".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from kourou_service.engine.interface import AbortCall, Engine, StatusCode, StreamCall, UnaryCall

SERVICE = "grpc.health.v1.Health"

_UNKNOWN: int = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
_SERVING: int = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: int = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """What Check and Watch answer; all services serve until told otherwise."""

    def __init__(self, services: Iterable[str], *, serving: bool = True) -> None:
        """`services`: full names, without ""."""
        status = _SERVING if serving else _NOT_SERVING
        self._statuses = dict.fromkeys(("", *services), status)
        self._changed = asyncio.Event()
        self._closed = False

    def set_serving(self, serving: bool, service: str | None = None) -> None:
        """Sets the status of one service, or of all. Has no effect after `close`."""
        if self._closed:
            return
        for name in tuple(self._statuses) if service is None else (service,):
            self._statuses[name] = _SERVING if serving else _NOT_SERVING
        self._wake_watches()

    def serves(self, service: str) -> bool:
        return self._statuses[service] == _SERVING

    def close(self) -> None:
        """All services are NOT_SERVING for good, and the watches end, so they do not hold up the engine's stop."""
        self.set_serving(False)
        self._closed = True
        self._wake_watches()

    def check(self, request: bytes, call: UnaryCall) -> None:
        service = _service_of(request)
        status = self._statuses.get(service)
        if status is None:
            raise AbortCall(StatusCode.NOT_FOUND, f"unknown service {service!r}")
        call.reply(_response(status))

    async def watch(self, call: StreamCall) -> None:
        service = _service_of(await call.receive() or b"")
        told: int | None = None
        while True:
            changed = self._changed
            status = self._statuses.get(service, _UNKNOWN)
            if status != told:
                await call.send(_response(status))
                told = status
            elif self._closed:
                return
            else:
                await changed.wait()

    def _wake_watches(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def serve_health(engine: Engine, services: Iterable[str], *, serving: bool = True) -> Health:
    """Registers the health service on `engine`, itself among the services it knows."""
    health = Health((*services, SERVICE), serving=serving)
    engine.unary(f"/{SERVICE}/Check", health.check)
    engine.stream(f"/{SERVICE}/Watch", health.watch)
    return health


def _service_of(request: bytes) -> str:
    try:
        return health_pb2.HealthCheckRequest.FromString(request).service
    except DecodeError:
        raise AbortCall(StatusCode.INVALID_ARGUMENT, "not a HealthCheckRequest") from None


def _response(status: int) -> bytes:
    message = health_pb2.HealthCheckResponse()
    message.status = status  # pyright: ignore[reportAttributeAccessIssue]
    return message.SerializeToString()
