"""The histories of messages, read from the log by a helper process, which shares only files with the broker."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from kourou_broker.log.file_medium import FileMedium
from kourou_broker.log.history_index import GrowingHistory, Row, SealedHistory, history_blob
from kourou_broker.log.medium import Medium, SegmentFile
from kourou_broker.log.reading import read_section, scan_on, scan_segment, segments
from kourou_broker.log.section import Section
from kourou_broker.state.history import HELD_QUEUE, HeldHistory, Historian, MessageHistory
from kourou_broker.state.timers import Place

T = TypeVar("T")
Feed = Callable[[Row, Callable[[], Section | None]], None]


class Histories:
    """What the broker asks; `run` calls a function in the helper process."""

    def __init__(self, folder: Path, run: Callable[..., Awaitable[Any]]) -> None:
        self._folder = folder
        self._run = run

    async def of(self, topic: int, queue: int, offset: int, since: int | None) -> MessageHistory:
        """What the log says of the message at that offset, which was stored at the position `since`.

        None if records of its beginning may be gone.
        """
        return await self._run(find_history, self._folder, topic, queue, offset, since)

    async def of_held(self, topic: int, origin: Place) -> HeldHistory:
        """What the log says of a message while it was held."""
        return await self._run(find_held_history, self._folder, topic, origin)


def find_history(folder: Path, topic: int, queue: int, offset: int, since: int | None) -> MessageHistory:
    """As Histories.of."""
    return _search(folder, lambda search: search.history(topic, queue, offset, since))


def find_held_history(folder: Path, topic: int, origin: Place) -> HeldHistory:
    """As Histories.of_held."""
    return _search(folder, lambda search: search.held_history(topic, origin))


def _search(folder: Path, work: Callable[["HistorySearch"], T]) -> T:
    search = _history_search(folder)
    try:
        return work(search)
    finally:
        search.close_files()


@lru_cache(maxsize=8)
def _history_search(folder: Path) -> "HistorySearch":
    return HistorySearch(FileMedium(folder, read_only=True))


class HistorySearch:
    """Searches one medium; remembers what it has read of the active segment."""

    def __init__(self, medium: Medium) -> None:
        self._medium = medium
        self._tail = _Tail(-1)

    def close_files(self) -> None:
        """An open file would keep the room of a segment that is dropped. They are opened again when needed."""
        self._medium.close()

    def history(self, topic: int, queue: int, offset: int, since: int | None) -> MessageHistory:
        """As Histories.of."""
        history = MessageHistory(offset, is_whole=since is not None)
        self._feed(history.feed, topic, queue, offset, since or 0)
        return history

    def held_history(self, topic: int, origin: Place) -> HeldHistory:
        """As Histories.of_held."""
        history = HeldHistory(origin)
        self._feed(history.feed, topic, HELD_QUEUE, origin.position, origin.position)
        return history

    def _feed(self, feed: Feed, topic: int, queue: int, offset: int, since: int) -> None:
        for file, following in segments(self._medium):
            if following is None or following > since:
                with suppress(FileNotFoundError):  # the segment was dropped meanwhile
                    for row in self._rows(file, following, topic, queue, offset):
                        if row.position >= since:
                            feed(row, partial(self._read, file.base, row))

    def _rows(self, file: SegmentFile, following: int | None, topic: int, queue: int, offset: int) -> list[Row]:
        if following is None:
            return self._scan_tail(file).rows(topic, queue, offset)
        with suppress(ValueError, FileNotFoundError):
            return SealedHistory(self._medium.view_blob(history_blob(file.base)), file.base).rows(topic, queue, offset)
        historian = Historian(file.base)
        scan = scan_segment(self._medium, file, following)
        for frame in scan.frames():
            for section in frame.sections:
                historian.add(section, frame.stored_ms)
        if not scan.damage:
            with suppress(OSError):  # no space, usually: it is built again the next time
                self._medium.write_blob(history_blob(file.base), historian.index.seal())
        return historian.index.rows(topic, queue, offset)

    def _scan_tail(self, file: SegmentFile) -> GrowingHistory:
        if self._tail.base != file.base:
            self._tail = _Tail(file.base)
        tail = self._tail
        scan = scan_on(self._medium, file, tail.end)
        for frame in scan.frames():
            for section in frame.sections:
                tail.historian.add(section, frame.stored_ms)
        tail.end = scan.end
        return tail.historian.index

    def _read(self, base: int, row: Row) -> Section | None:
        try:
            return read_section(self._medium, base, row.position)
        except (ValueError, FileNotFoundError):
            return None


class _Tail:
    """What was read of the active segment."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.end = base
        self.historian = Historian(base)
