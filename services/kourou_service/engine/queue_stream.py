"""Streams on the completion queue: one message an operation, one operation each way at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from kourou_service.engine.interface import AbortCall, Metadata, StatusCode, StreamHandler
from kourou_service.engine.private_api import (
    BatchEvent,
    Operation,
    RequestCallEvent,
    receive_close,
    receive_message,
    send_initial_metadata,
    send_message,
    send_status,
)
from kourou_service.engine.queue_call import (
    NO_FLAGS,
    QueueCall,
    ignore,
    refuse,
    status_number,
)
from kourou_service.engine.status import MAX_DETAILS_CHARS, require_legal

MAX_UNSENT_BYTES = 64 * 1024
"""So much may wait behind the message under way: a handler that sends several small ones is not woken for each."""
MESSAGE_OVERHEAD_BYTES = 64

log = logging.getLogger(__name__)

Tasks = set["asyncio.Task[None]"]


class StreamRoute:
    """A method and its handler; `tasks` holds the running handlers of all methods."""

    __slots__ = ("_handler", "_max_tasks", "_path", "_tasks")

    def __init__(self, path: str, handler: StreamHandler, tasks: Tasks, max_tasks: int) -> None:
        self._path = path
        self._handler = handler
        self._tasks = tasks
        self._max_tasks = max_tasks

    def accept(self, event: RequestCallEvent, listener: str) -> None:
        if len(self._tasks) >= self._max_tasks:
            refuse(event.call, StatusCode.RESOURCE_EXHAUSTED, "too many concurrent streams")
            return
        call = QueueStreamCall(event, self._path, listener)
        task = asyncio.get_running_loop().create_task(call.run(self._handler))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        call.begin(task)


class QueueStreamCall(QueueCall):
    # An operation outlives the coroutine that waits for it (handlers put time limits on `receive`), so its outcome is
    # kept here, and the future only wakes the waiting one.
    __slots__ = (
        "_half_closed",
        "_last",
        "_message",
        "_metadata_sent",
        "_peer",
        "_reader",
        "_receiving",
        "_sending",
        "_task",
        "_trailing",
        "_unsent",
        "_unsent_bytes",
        "_wake_writer_below_bytes",
        "_writer",
        "cancelled",
    )

    def __init__(self, event: RequestCallEvent, method: str, listener: str) -> None:
        super().__init__(event, method, listener)
        self._peer = event.call.peer().decode()
        self._task: asyncio.Task[None] | None = None
        self._message: bytes | None = None
        self._receiving = False
        self._half_closed = False
        self._reader: asyncio.Future[None] | None = None
        self._sending = False
        self._metadata_sent = False
        self._writer: asyncio.Future[None] | None = None
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._wake_writer_below_bytes = 0
        self._trailing: Metadata = ()
        self._last: bytes | None = None
        self.cancelled = False

    @property
    def peer(self) -> str:
        return self._peer

    def begin(self, task: asyncio.Task[None]) -> None:
        assert self._core is not None
        self._task = task
        self._core.start_server_batch((receive_close(NO_FLAGS),), self._closed)
        self._start_receiving()  # so the first message is often there when the handler asks

    async def run(self, handler: StreamHandler) -> None:
        status, details = StatusCode.OK, ""
        try:
            await handler(self)
        except AbortCall as abort:
            status, details = abort.code, abort.details
        except asyncio.CancelledError:
            if self.cancelled:
                raise
            status, details = StatusCode.CANCELLED, "cancelled by the server"
        except Exception:
            log.exception("the handler of %s failed", self.method)
            status, details = StatusCode.INTERNAL, "internal error"
        try:
            await self.flush()
            self._send_status(status, details)
        finally:
            self._task = None

    async def receive(self) -> bytes | None:
        if self._reader is not None:
            raise RuntimeError(f"{self.method}: a receive is under way")
        while self._message is None and not self._half_closed:
            if not self._receiving:
                self._start_receiving()
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        message, self._message = self._message, None
        return message

    async def send(self, response: bytes) -> None:
        if self._writer is not None:
            raise RuntimeError(f"{self.method}: a send is under way")
        if self._core is None:
            raise asyncio.CancelledError(f"{self.method}: the client is gone")
        if not self._sending:
            self._start_sending(response)
            return
        self._unsent.append(response)
        self._unsent_bytes += len(response) + MESSAGE_OVERHEAD_BYTES
        if self._unsent_bytes > MAX_UNSENT_BYTES:
            await self._unsent_below(MAX_UNSENT_BYTES)

    async def send_last(self, response: bytes) -> None:
        self._last = response

    async def flush(self) -> None:
        await self._unsent_below(0)

    def set_trailing(self, metadata: Metadata) -> None:
        require_legal(metadata)
        self._trailing = metadata

    def _start_receiving(self) -> None:
        if self._core is None:
            raise asyncio.CancelledError(f"{self.method}: the client is gone")
        self._core.start_server_batch((receive_message(NO_FLAGS),), self._received)
        self._receiving = True

    def _received(self, event: BatchEvent) -> None:
        self._receiving = False
        self._message = event.batch_operations[0].message()
        self._half_closed = self._message is None
        _wake(self._reader)

    def _start_sending(self, message: bytes) -> None:
        assert self._core is not None
        operations: list[Operation] = [] if self._metadata_sent else [send_initial_metadata((), NO_FLAGS)]
        operations.append(send_message(message, NO_FLAGS))
        self._core.start_server_batch(operations, self._sent)
        self._metadata_sent = True
        self._sending = True

    def _sent(self, _event: BatchEvent) -> None:
        self._sending = False
        if self._unsent and self._core is not None:
            message = self._unsent.popleft()
            self._unsent_bytes -= len(message) + MESSAGE_OVERHEAD_BYTES
            self._start_sending(message)
        if not self._sending or self._unsent_bytes < self._wake_writer_below_bytes:
            _wake(self._writer)

    async def _unsent_below(self, size_bytes: int) -> None:
        """Waits until less than that is unsent; 0: until nothing is, nor under way."""
        self._wake_writer_below_bytes = size_bytes
        while self._sending and not self._unsent_bytes < size_bytes:
            self._writer = asyncio.get_running_loop().create_future()
            try:
                await self._writer
            finally:
                self._writer = None

    def _closed(self, event: BatchEvent) -> None:
        if event.batch_operations[0].cancelled() and self._core is not None:
            self.cancelled = True
            self._core = None
            self._unsent.clear()
            if self._task is not None:
                self._task.cancel()

    def _send_status(self, code: StatusCode, details: str) -> None:
        if self._core is None:
            return
        operations: list[Operation] = [] if self._metadata_sent else [send_initial_metadata((), NO_FLAGS)]
        if self._last is not None:
            operations.append(send_message(self._last, NO_FLAGS))
        operations.append(send_status(self._trailing, status_number(code), details[:MAX_DETAILS_CHARS], NO_FLAGS))
        self._core.start_server_batch(operations, ignore)
        self._core = None


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
