"""Streams on the completion queue: one message an operation, one operation each way at a time."""

from __future__ import annotations

import asyncio
import logging

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
        "_message",
        "_metadata_sent",
        "_peer",
        "_reader",
        "_receiving",
        "_sending",
        "_status",
        "_task",
        "_trailing",
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
        self._trailing: Metadata = ()
        self._status: tuple[StatusCode, str] | None = None
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
        try:
            await handler(self)
        except AbortCall as abort:
            self._end(abort.code, abort.details)
        except asyncio.CancelledError:
            self._end(StatusCode.CANCELLED, "cancelled by the server")
            raise
        except Exception:
            log.exception("the handler of %s failed", self.method)
            self._end(StatusCode.INTERNAL, "internal error")
        else:
            self._end(StatusCode.OK, "")
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
        while self._sending:
            self._writer = asyncio.get_running_loop().create_future()
            try:
                await self._writer
            finally:
                self._writer = None
        if self._core is None:
            raise asyncio.CancelledError(f"{self.method}: the client is gone")
        operations: tuple[Operation, ...] = (send_message(response, NO_FLAGS),)
        if not self._metadata_sent:
            operations = (send_initial_metadata((), NO_FLAGS), *operations)
        self._core.start_server_batch(operations, self._sent)
        self._metadata_sent = True
        self._sending = True

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

    def _sent(self, _event: BatchEvent) -> None:
        self._sending = False
        if self._status is not None:
            self._send_status(*self._status)
        _wake(self._writer)

    def _closed(self, event: BatchEvent) -> None:
        if event.batch_operations[0].cancelled() and self._core is not None:
            self.cancelled = True
            self._core = None
            if self._task is not None:
                self._task.cancel()

    def _end(self, code: StatusCode, details: str) -> None:
        self._status = (code, details)
        if not self._sending:  # else the status follows when the last message has gone
            self._send_status(code, details)

    def _send_status(self, code: StatusCode, details: str) -> None:
        if self._core is None:
            return
        status = send_status(self._trailing, status_number(code), details[:MAX_DETAILS_CHARS], NO_FLAGS)
        operations = (status,) if self._metadata_sent else (send_initial_metadata((), NO_FLAGS), status)
        self._core.start_server_batch(operations, ignore)
        self._core = None


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
