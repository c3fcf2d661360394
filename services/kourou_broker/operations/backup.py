"""An online backup: a copy of the data folder as it was when the copy began, taken while the broker works.

What is written once is never changed, and any durable beginning of the log is a whole log: the copy is the same as what
a crash at that moment would have left. So nothing waits for a backup but retention: it keeps each segment until it is
copied, from the oldest on. Snapshots come first; a view of them outlives them. Of what is derived from the log only the
queue indexes are copied: they are small, and without them the first start on the copy would read all of the log.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.index import index_blob
from kourou_broker.log.log import Log, SegmentInfo
from kourou_broker.log.medium import Bytes, Medium, segment_name
from kourou_broker.log.worker import Worker, run_in
from kourou_broker.state import fold
from kourou_service.refusal import Refused

_logger = structlog.stdlib.get_logger(__name__)

PIECE_BYTES = 512 * 1024
"""Read by the worker at once: what else it has to do waits no longer than that takes."""


class Piece(NamedTuple):
    """A part of a file; what no piece of it holds is zeros."""

    file: str
    offset: int
    data: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    size_bytes: int
    held_bytes: int
    """Behind these there are only zeros."""
    read: Callable[[int, int], bytes]
    """From an offset on so many bytes; blocks."""
    base: int | None = None
    """A segment's."""


class Backup:
    """What is to be copied, while it is under way. All below `position` is in it."""

    def __init__(self, log: Log, worker: Worker, position: int, files: Sequence[_File]) -> None:
        self._log = log
        self._worker = worker
        self._files = files
        self.position = position
        self.total_bytes = sum(file.held_bytes for file in files)

    async def pieces(self) -> AsyncIterator[Piece]:
        """Each file has one piece at least. Raises Refused when it cannot go on."""
        for file in self._files:
            offset = 0
            while offset < file.held_bytes or offset == 0:
                if self._log.kept_from is None:
                    raise Refused(
                        definition_pb2.INTERNAL_SERVER_ERROR,
                        "the broker's disk is full: retention had to drop segments that were not copied yet",
                    )
                if file.base is not None:
                    self._log.kept_from = file.base
                data = await self._read(file, offset, min(PIECE_BYTES, file.held_bytes - offset))
                yield Piece(file.name, offset, data, file.size_bytes)
                offset += PIECE_BYTES

    async def _read(self, file: _File, offset: int, size_bytes: int) -> bytes:
        try:
            data = await run_in(self._worker, lambda: file.read(offset, size_bytes))
        except OSError as problem:
            raise Refused(definition_pb2.INTERNAL_SERVER_ERROR, f"{file.name} cannot be read: {problem}") from problem
        if len(data) < size_bytes:
            raise Refused(definition_pb2.INTERNAL_SERVER_ERROR, f"{file.name} is shorter than it should be")
        return data


class Backups:
    """One at a time; `worker` reads."""

    def __init__(self, log: Log, medium: Medium, worker: Worker) -> None:
        self._log = log
        self._medium = medium
        self._worker = worker
        self._running = False

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[Backup]:
        """Until the end of the block no segment goes that is not copied. Raises Refused while there is another one."""
        if self._running:
            raise Refused(
                definition_pb2.TOO_MANY_REQUESTS, "the broker is being backed up already: one copy at a time is made"
            )
        log, position, segments = self._log, self._log.durable_position, self._log.segments()
        self._running = True
        log.kept_from = segments[0].base
        try:
            # The worker keeps the order: snapshots that were written before stand at or below the position.
            files = await run_in(self._worker, lambda: _files(self._medium, segments, position))
            backup = Backup(log, self._worker, position, files)
            _logger.info("a backup begins", position=position, bytes=backup.total_bytes)
            yield backup
            _logger.info("a backup ends", position=position, bytes=backup.total_bytes)
        except BaseException as problem:
            _logger.warning("a backup was not completed", reason=str(problem) or type(problem).__name__)
            raise
        finally:
            log.kept_from = None
            self._running = False


def _files(medium: Medium, segments: Sequence[SegmentInfo], position: int) -> list[_File]:
    sizes = dict(medium.segments())
    files = [_blob("identity", medium.identity)]
    for name in map(fold.snapshot_name, fold.snapshots(medium)[: fold.GENERATIONS]):
        files.append(_blob(f"blobs/{name}", medium.view_blob(name)))
    for base, end, *_ in segments:
        if base < position or base == segments[0].base:
            files.append(_segment(medium, base, sizes[base], min(end, position) - base))
            with suppress(FileNotFoundError):
                files.append(_index(medium, base))
    return files


def _blob(name: str, data: Bytes) -> _File:
    return _File(name, len(data), len(data), lambda offset, size: bytes(data[offset : offset + size]))


def _segment(medium: Medium, base: int, size_bytes: int, held_bytes: int) -> _File:
    name = f"segments/{segment_name(base)}.segment"
    return _File(name, size_bytes, held_bytes, lambda offset, size: medium.read(base, offset, size), base)


def _index(medium: Medium, base: int) -> _File:
    """Not viewed all the time: so many mappings may be more than a process may have."""
    name = index_blob(base)
    size = len(medium.view_blob(name))
    return _File(f"blobs/{name}", size, size, lambda at, part: bytes(medium.view_blob(name)[at : at + part]), base)
