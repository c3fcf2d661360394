"""Which engine serves: the fast one on grpcio's private completion queue, or the reference on public grpc.aio."""

from __future__ import annotations

import logging
from typing import Literal

from kourou_service.engine import private_api
from kourou_service.engine.aio_engine import AioEngine
from kourou_service.engine.interface import Engine, EngineOptions
from kourou_service.engine.queue_engine import QueueEngine
from kourou_service.metrics.calls import CallMeters

EngineKind = Literal["auto", "queue", "aio"]

log = logging.getLogger(__name__)


def create_engine(
    kind: EngineKind = "auto", options: EngineOptions | None = None, meters: CallMeters | None = None
) -> Engine:
    """`auto` takes the queue engine, or aio with a warning where this grpcio cannot carry it. `meters` are given when
    several engines share them.

    Raises RuntimeError if `queue` is asked for and cannot be had.
    """
    options, meters = options or EngineOptions(), meters or CallMeters()
    if kind == "aio":
        return AioEngine(options, meters)
    problem = private_api.problem()
    if problem is None:
        return QueueEngine(options, meters)
    if kind == "queue":
        raise RuntimeError(f"the queue engine does not work with the grpcio installed here: {problem}")
    log.warning("serving on grpc.aio, some three times slower: the queue engine cannot be used (%s)", problem)
    return AioEngine(options, meters)
