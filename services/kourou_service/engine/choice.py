"""Which engine serves: the fast one on grpcio's private completion queue, or the reference on public grpc.aio."""

from __future__ import annotations

import logging
from typing import Literal

from kourou_service.engine import private_api
from kourou_service.engine.aio_engine import AioEngine
from kourou_service.engine.interface import Engine, EngineOptions
from kourou_service.engine.queue_engine import QueueEngine

EngineKind = Literal["auto", "queue", "aio"]

log = logging.getLogger(__name__)


def create_engine(kind: EngineKind = "auto", options: EngineOptions | None = None) -> Engine:
    """`auto` takes the queue engine, or aio with a warning where this grpcio cannot carry it.

    Raises RuntimeError if `queue` is asked for and cannot be had.
    """
    options = options or EngineOptions()
    if kind == "aio":
        return AioEngine(options)
    problem = private_api.problem()
    if problem is None:
        return QueueEngine(options)
    if kind == "queue":
        raise RuntimeError(f"the queue engine does not work with the grpcio installed here: {problem}")
    log.warning("serving on grpc.aio, some three times slower: the queue engine cannot be used (%s)", problem)
    return AioEngine(options)
