"""Unary calls on gRPC's completion queue with the least there can be: no loop, no thread, no error is handled."""

from __future__ import annotations

import time
from typing import Any

from kourou_service.engine.private_api import (
    TIMED_OUT,
    CoreCall,
    new_completion_queue,
    new_server,
    receive_close,
    receive_message,
    send_initial_metadata,
    send_message,
    send_status,
)

OUTSTANDING_REQUESTS = 64


class FloorCall:
    __slots__ = ("_core", "_handler")

    def __init__(self, core: CoreCall, handler: Any) -> None:
        self._core = core
        self._handler = handler

    def received(self, event: Any) -> None:
        request = event.batch_operations[0].message()
        if request is not None:
            self._handler(request, self)

    def reply(self, response: bytes) -> None:
        operations = (
            send_initial_metadata((), 0),
            send_message(response, 0),
            send_status((), 0, "", 0),
            receive_close(0),
        )
        self._core.start_server_batch(operations, ignore)


def ignore(_event: Any) -> None:
    pass


def serve_floor(path: str, handler: Any) -> None:
    """Serves one method on a free port of 127.0.0.1, which it prints, until the process is ended."""
    queue = new_completion_queue()
    server = new_server((("grpc.so_reuseport", 0),), queue)
    print(f"127.0.0.1:{server.add_http2_port(b'127.0.0.1:0')}", flush=True)
    server.start()

    def accept(event: Any) -> None:
        server.request_call(queue, queue, accept)
        assert event.call_details.method.decode() == path
        event.call.start_server_batch((receive_message(0),), FloorCall(event.call, handler).received)

    for _ in range(OUTSTANDING_REQUESTS):
        server.request_call(queue, queue, accept)
    while True:
        event = queue.poll(time.time() + 1)
        if event.completion_type != TIMED_OUT:
            event.tag(event)
        del event
