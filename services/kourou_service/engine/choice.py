"""Which engine serves: the fast one on grpcio's private completion queue, or the reference on public grpc.aio."""

from __future__ import annotations

from typing import Literal

from kourou_service.engine.interface import Engine, EngineOptions

EngineKind = Literal["auto", "queue", "aio"]


def create_engine(kind: EngineKind = "auto", options: EngineOptions | None = None) -> Engine:
    """`auto` takes the queue engine, and falls back to aio with a warning where this grpcio cannot carry it."""
    raise NotImplementedError
