"""Messages from any number of threads to the event loop of the clients: many for one wake-up of the loop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from kourou import portal
from kourou.errors import KourouError
from kourou.memory import OVERHEAD_BYTES
from kourou.message import Message
from kourou.results import SendResult

Put = Callable[[Message, float | None, "Future[SendResult]"], None]


class Handover:
    def __init__(self, put: Put, max_bytes: int) -> None:
        """`put`: called on the loop. `max_bytes`: with so much unanswered, threads wait."""
        self._put = put
        self._max_bytes = max_bytes
        self._unanswered_bytes = 0
        self._waiting: deque[tuple[Message, float | None, Future[SendResult]]] = deque()
        self._is_called = False
        self._changed = threading.Condition()

    def put(self, message: Message, timeout_s: float | None) -> Future[SendResult]:
        """Blocks until there is room. Raises RuntimeError on the loop's own thread, where it would wait for itself."""
        portal.check_not_within()
        size_bytes = message.size_bytes + OVERHEAD_BYTES
        future: Future[SendResult] = Future()
        with self._changed:
            while self._unanswered_bytes >= self._max_bytes:
                self._changed.wait()
            self._unanswered_bytes += size_bytes
            self._waiting.append((message, timeout_s, future))
            is_called, self._is_called = self._is_called, True
        future.add_done_callback(partial(self._answered, size_bytes))
        if not is_called:
            portal.call_soon(self._take)
        return future

    def _take(self) -> None:
        with self._changed:
            self._is_called = False
            taken, self._waiting = self._waiting, deque()
        for message, timeout_s, future in taken:
            try:
                self._put(message, timeout_s, future)
            except KourouError as error:
                if not future.done():
                    future.set_exception(error)

    def _answered(self, size_bytes: int, future: Future[SendResult]) -> None:
        with self._changed:
            was_full = self._unanswered_bytes >= self._max_bytes
            self._unanswered_bytes -= size_bytes
            if was_full:
                self._changed.notify_all()
