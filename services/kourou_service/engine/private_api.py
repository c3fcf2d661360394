"""All that is used of grpcio's private `cygrpc`, with types; nothing else in the project touches it.

What its users must know: an operation object serves one batch only (a second use crashes the process); a batch's tag is
whatever was given with it and comes back in the batch's event; an event must be let go before the queue is polled
again; a batch on a queue that was shut down aborts the process; a started server that is freed before its shutdown
has completed hangs the process.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grpc

from kourou_service.engine.channel_args import ChannelArgs
from kourou_service.engine.interface import Metadata

TESTED_VERSION = (1, 85)
"""The minor version of grpcio that passed the tests of the engine, and that services/pyproject.toml pins."""

QUEUE_METHODS = ("poll", "shutdown")
SERVER_METHODS = ("add_http2_port", "start", "request_call", "shutdown", "cancel_all_calls", "destroy")
CALL_METHODS = ("start_server_batch", "peer")

Tag = Callable[[Any], None]
"""Called with the event of the batch or call it was given with."""


class Operation(Protocol):
    def message(self) -> bytes | None: ...

    def cancelled(self) -> bool: ...


class CoreCall(Protocol):
    def start_server_batch(self, operations: Sequence[Operation], tag: Tag) -> int: ...

    def peer(self) -> bytes: ...


class CallDetails(Protocol):
    method: bytes
    host: bytes
    deadline: float
    """Unix time in seconds; far away (about 9.2e18) if there is none."""


class BatchEvent(Protocol):
    completion_type: int
    success: bool
    tag: Tag
    batch_operations: Sequence[Operation]


class RequestCallEvent(Protocol):
    completion_type: int
    success: bool
    tag: Tag
    call: CoreCall
    call_details: CallDetails
    invocation_metadata: tuple[tuple[str, str | bytes], ...]


class CompletionQueue(Protocol):
    def poll(self, deadline: float) -> BatchEvent:
        """Waits until that Unix time (0: not at all). The event's type is COMPLETE, TIMED_OUT or SHUT_DOWN."""
        ...

    def shutdown(self) -> None: ...


class Server(Protocol):
    def register_completion_queue(self, queue: CompletionQueue) -> None: ...

    def add_http2_port(self, address: bytes, credentials: object = None) -> int: ...

    def start(self) -> None: ...

    def request_call(self, call_queue: CompletionQueue, server_queue: CompletionQueue, tag: Tag) -> int: ...

    def shutdown(self, queue: CompletionQueue, tag: Tag) -> None: ...

    def cancel_all_calls(self) -> None: ...

    def destroy(self) -> None: ...


try:
    _cygrpc: Any = importlib.import_module("grpc._cython.cygrpc")
    COMPLETE: int = _cygrpc.CompletionType.operation_complete
    TIMED_OUT: int = _cygrpc.CompletionType.queue_timeout
    SHUT_DOWN: int = _cygrpc.CompletionType.queue_shutdown
    receive_message: Callable[[int], Operation] = _cygrpc.ReceiveMessageOperation
    receive_close: Callable[[int], Operation] = _cygrpc.ReceiveCloseOnServerOperation
    send_initial_metadata: Callable[[Metadata, int], Operation] = _cygrpc.SendInitialMetadataOperation
    send_message: Callable[[bytes, int], Operation] = _cygrpc.SendMessageOperation
    send_status: Callable[[Metadata, int, str, int], Operation] = _cygrpc.SendStatusFromServerOperation
    new_completion_queue: Callable[[], CompletionQueue] = _cygrpc.CompletionQueue
    _new_server: Callable[[ChannelArgs, bool], Server] = _cygrpc.Server
except (ImportError, AttributeError) as error:
    _missing: str | None = str(error)
else:
    _missing = None


def new_server(args: ChannelArgs, queue: CompletionQueue) -> Server:
    server = _new_server(args, False)
    server.register_completion_queue(queue)
    return server


def add_port(server: Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    """The port bound, 0 if gRPC could not bind it."""
    if credentials is None:
        return server.add_http2_port(address.encode())
    core_credentials: Any = credentials
    return server.add_http2_port(address.encode(), core_credentials._credentials)


def problem() -> str | None:
    """Why the private API of the grpcio installed here cannot be used; None if it can."""
    version = tuple(int(part) for part in grpc.__version__.split(".")[:2])
    if version != TESTED_VERSION:
        return f"grpcio {grpc.__version__} is not the tested {TESTED_VERSION[0]}.{TESTED_VERSION[1]}"
    if _missing is not None:
        return _missing
    try:
        return _self_check()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _self_check() -> str | None:
    """Makes one of everything and looks for each method, but starts nothing: a server that failed to stop would hang
    the process when it is freed."""
    _ = (receive_message(0), receive_close(0), send_initial_metadata((), 0), send_message(b"", 0))
    _ = send_status((), 0, "", 0)
    queue = new_completion_queue()
    server = new_server((("grpc.so_reuseport", 0),), queue)
    for object_, methods in ((queue, QUEUE_METHODS), (server, SERVER_METHODS), (_cygrpc.Call, CALL_METHODS)):
        for method in methods:
            if not callable(getattr(object_, method, None)):
                return f"{type(object_).__name__} has no {method}"
    return None
