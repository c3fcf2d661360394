"""The gRPC server under all doors; see `interface` for the contract and `choice` for which engine serves it."""

from kourou_service.engine.choice import create_engine
from kourou_service.engine.interface import (
    AbortCall,
    Call,
    Engine,
    EngineOptions,
    Metadata,
    StatusCode,
    StreamCall,
    StreamHandler,
    UnaryCall,
    UnaryHandler,
    UnderWay,
)

__all__ = [
    "AbortCall",
    "Call",
    "Engine",
    "EngineOptions",
    "Metadata",
    "StatusCode",
    "StreamCall",
    "StreamHandler",
    "UnaryCall",
    "UnaryHandler",
    "UnderWay",
    "create_engine",
]
