"""Sections of the log in pieces that are larger than most of them: who reads one reads those behind it soon.

The sections of a topic's queues lie between each other, so a piece serves all of them, and all groups that are about
as far.
"""

import asyncio
from collections import OrderedDict
from typing import NamedTuple

from kourou_broker.log.log import Log

PIECE_BYTES = 256 * 1024
_MAX_PIECES_BYTES = 4 * 1024 * 1024


class _Piece(NamedTuple):
    end: int
    data: "asyncio.Task[bytes]"


class ReadingAhead:
    def __init__(self, log: Log) -> None:
        self._log = log
        self._pieces: OrderedDict[int, _Piece] = OrderedDict()
        """By their positions, the one that was asked last at the end."""
        self._size_bytes = 0

    async def read(self, position: int, length: int) -> bytes:
        """That range of the log, which lies within one segment and is durable. Raises Dropped, OSError."""
        begin = self._find(position, position + length)
        if begin is None:
            begin = position
            self._start(position, length)
        self._pieces.move_to_end(begin)
        data = await asyncio.shield(self._pieces[begin].data)
        at = position - begin
        return data[at : at + length] if len(data) > length else data

    def _find(self, position: int, end: int) -> int | None:
        for begin, piece in reversed(self._pieces.items()):
            if begin <= position and end <= piece.end:
                return begin
        return None

    def _start(self, position: int, length: int) -> None:
        if position in self._pieces:  # too short: the log has grown
            self._forget(position)
        length = max(length, min(PIECE_BYTES, self._log.readable_end(position) - position))
        reading = asyncio.ensure_future(self._log.read(position, length))
        self._pieces[position] = _Piece(position + length, reading)
        self._size_bytes += length
        while self._size_bytes > _MAX_PIECES_BYTES and len(self._pieces) > 1:
            self._forget(next(iter(self._pieces)))

        def ended(reading: "asyncio.Task[bytes]") -> None:
            failed = reading.cancelled() or reading.exception() is not None
            piece = self._pieces.get(position)
            if failed and piece is not None and piece.data is reading:
                self._forget(position)

        reading.add_done_callback(ended)

    def _forget(self, position: int) -> None:
        self._size_bytes -= self._pieces.pop(position).end - position
