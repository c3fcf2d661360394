"""The Publish stream to one broker: requests as far as its window goes, answers by their numbers."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from contextlib import suppress
from typing import Any

from grpc import StatusCode

from kourou.doors import NoSuchDoor
from kourou.errors import ConnectionFailed, TimeoutExceeded, check_status, error_of_rpc
from kourou.protocol.kourou.stream.v1 import stream_pb2, stream_rpc
from kourou.transport import BidiCall, RpcError
from kourou.wire import Wire

_OVERHEAD_BYTES = 512
"""Of a request beside headers and bodies, at most: what it counts in the window, whichever way a broker counts."""

Call = BidiCall[stream_pb2.PublishRequest, stream_pb2.PublishResponse]


class _Asked:
    """A request on its way to its answer."""

    def __init__(self, request: stream_pb2.PublishRequest, size_bytes: int) -> None:
        self.request: stream_pb2.PublishRequest | None = request
        """None: it was written."""
        self.size_bytes = size_bytes + _OVERHEAD_BYTES
        self.answer: asyncio.Future[stream_pb2.PublishResponse] = asyncio.get_running_loop().create_future()


class PublishStream:
    """Opened with the first request, and again with the first one after it broke."""

    def __init__(self, wire: Wire, address: str) -> None:
        self._wire = wire
        self._address = address
        self._opening: asyncio.Task[_Open] | None = None
        self._streams: set[_Open] = set()

    async def ask(
        self, request: stream_pb2.PublishRequest, size_bytes: int, timeout_s: float
    ) -> stream_pb2.PublishResponse:
        """The answer, its status checked; gives the request its number. Raises NoSuchDoor, what the broker answers,
        ConnectionFailed when it never left, TimeoutExceeded when there is no answer.

        size_bytes: of headers and bodies, which to ask the request for would copy them."""
        asked = _Asked(request, size_bytes)
        try:
            async with asyncio.timeout(timeout_s):
                stream = await self._opened()
                stream.put(asked)
                answer = await asked.answer
        except RpcError as error:
            if error.code is StatusCode.UNIMPLEMENTED:
                raise NoSuchDoor from None
            raise error_of_rpc(error, self._address) from error
        except TimeoutError:
            if asked.request is not None:
                raise ConnectionFailed(f"{self._address} did not take the request in time") from None
            raise TimeoutExceeded(f"{self._address} did not answer in time") from None
        check_status(answer.status)
        return answer

    def leave(self) -> None:
        """The next request opens a stream anew; what the one that is open was asked, it may still answer."""
        self._opening = None

    async def close(self) -> None:
        tasks: list[asyncio.Task[Any]] = [stream.reading for stream in self._streams]
        if self._opening is not None:
            tasks.append(self._opening)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _opened(self) -> _Open:
        opening = self._opening
        if opening is None or (opening.done() and (opening.exception() is not None or not opening.result().is_open)):
            opening = self._opening = asyncio.create_task(self._open(), name=f"kourou publish {self._address}")
        return await asyncio.shield(opening)

    async def _open(self) -> _Open:
        call = self._wire.bidi(self._address, stream_rpc.PUBLISH)
        try:
            first = await call.read()
        except BaseException:
            call.cancel()
            raise
        if first is None:
            raise RpcError(StatusCode.UNAVAILABLE, "it ended the stream", sent=False)
        check_status(first.status)
        stream = _Open(call, first)
        self._streams.add(stream)
        stream.reading.add_done_callback(lambda _: self._streams.discard(stream))
        return stream


class _Open:
    """Until it breaks."""

    def __init__(self, call: Call, first: stream_pb2.PublishResponse) -> None:
        self._call = call
        self._window_bytes = first.window_bytes
        self._unanswered_bytes = 0
        self._unanswered: dict[int, _Asked] = {}
        self._unwritten: deque[_Asked] = deque()
        self._numbers = itertools.count(1)
        self._news = asyncio.Event()
        self._end: RpcError | None = None
        self.reading = asyncio.create_task(self._read())
        # On its own: who gives up waiting for an answer must not cut a write in half.
        self._writing = asyncio.create_task(self._write())

    @property
    def is_open(self) -> bool:
        return self._end is None

    def put(self, asked: _Asked) -> None:
        """Its answer comes, or RpcError: certainly not sent, if it says so."""
        if self._end is not None:
            asked.answer.set_exception(RpcError(self._end.code, self._end.details, sent=False))
            return
        self._unwritten.append(asked)
        self._news.set()

    async def _write(self) -> None:
        with suppress(RpcError):  # the reader hears it too
            while True:
                while not (self._unwritten and self._has_room(self._unwritten[0])):
                    self._news.clear()
                    await self._news.wait()
                asked = self._unwritten.popleft()
                request = asked.request
                if asked.answer.done() or request is None:  # given up
                    continue
                request.number = next(self._numbers)
                asked.request = None
                self._unanswered[request.number] = asked
                self._unanswered_bytes += asked.size_bytes
                await self._call.write(request)

    def _has_room(self, asked: _Asked) -> bool:
        return not self._unanswered or self._unanswered_bytes + asked.size_bytes <= self._window_bytes

    async def _read(self) -> None:
        end = RpcError(StatusCode.UNAVAILABLE, "it ended the stream")
        try:
            while (answer := await self._call.read()) is not None:
                self._take(answer)
        except RpcError as error:
            end = error
        except asyncio.CancelledError:
            end = RpcError(StatusCode.CANCELLED, "the client was closed")
            raise
        finally:
            self._end = end
            self._writing.cancel()
            self._call.cancel()
            for asked in self._unanswered.values():
                _fail(asked, end)
            for asked in self._unwritten:
                _fail(asked, RpcError(end.code, end.details, sent=False))

    def _take(self, answer: stream_pb2.PublishResponse) -> None:
        if answer.HasField("window_bytes"):
            self._window_bytes = answer.window_bytes
        asked = self._unanswered.pop(answer.number, None)
        if asked is not None:
            self._unanswered_bytes -= asked.size_bytes
            if not asked.answer.done():
                asked.answer.set_result(answer)
        self._news.set()


def _fail(asked: _Asked, error: RpcError) -> None:
    if not asked.answer.done():
        asked.answer.set_exception(error)
