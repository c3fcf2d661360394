"""Stored messages by id, key and time: searched by a helper process, which shares only files with the broker.

The functions here run in that process. A sealed segment is searched by its key index, which is built now if it is not
there yet; the active segment is scanned, each part of it once.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from kourou_broker.log.file_medium import FileMedium
from kourou_broker.log.frame import Frame
from kourou_broker.log.key_index import (
    GrowingKeys,
    KeyIndex,
    Place,
    has_key,
    hashes,
    id_hashes,
    index_of_id,
    key_hash,
    key_index_blob,
)
from kourou_broker.log.medium import Medium, SegmentFile
from kourou_broker.log.reading import read_section, scan_on, scan_segment, segments
from kourou_broker.log.sealing import read_sealed
from kourou_broker.log.section import MESSAGE_KINDS, Section, SectionKind

Found = list[Place]

_COPIES = frozenset((SectionKind.CARRY, SectionKind.HELD_CARRIED))
"""Made when a segment is dropped: their messages were stored before."""


class Lookup:
    """What the broker asks; `run` calls a function in the helper process."""

    def __init__(self, folder: Path, run: Callable[..., Awaitable[Found]]) -> None:
        self._folder = folder
        self._run = run

    async def prepare(self) -> None:
        """Reads what is read once: the active segment, as far as it goes."""
        await self._run(prepare, self._folder)

    async def by_id(self, topic: int, message_id: str, limit: int) -> Found:
        """The messages of that id, the newest first."""
        return await self._run(find_id, self._folder, topic, message_id, limit)

    async def by_key(self, topic: int, key: str, limit: int) -> Found:
        """The messages that have that key, the newest first."""
        return await self._run(find_key, self._folder, topic, key, limit)

    async def by_time(self, topic: int, from_ms: int, to_ms: int, limit: int) -> Found:
        """The messages stored from `from_ms` up to and including `to_ms`, the oldest first."""
        return await self._run(find_time, self._folder, topic, from_ms, to_ms, limit)


def prepare(folder: Path) -> Found:
    """As Lookup.prepare; finds nothing."""
    return _search(folder, lambda searcher: searcher.prepare())


def find_id(folder: Path, topic: int, message_id: str, limit: int) -> Found:
    """As Lookup.by_id."""
    return _search(folder, lambda searcher: searcher.by_id(topic, message_id, limit))


def find_key(folder: Path, topic: int, key: str, limit: int) -> Found:
    """As Lookup.by_key."""
    return _search(folder, lambda searcher: searcher.by_key(topic, key, limit))


def find_time(folder: Path, topic: int, from_ms: int, to_ms: int, limit: int) -> Found:
    """As Lookup.by_time."""
    return _search(folder, lambda searcher: searcher.by_time(topic, from_ms, to_ms, limit))


def _search(folder: Path, work: Callable[["Searcher"], Found]) -> Found:
    searcher = _searcher(folder)
    try:
        return work(searcher)
    finally:
        searcher.close_files()


@lru_cache(maxsize=8)
def _searcher(folder: Path) -> "Searcher":
    return Searcher(FileMedium(folder, read_only=True))


class Searcher:
    """Searches one medium; remembers how far it has read the active segment."""

    def __init__(self, medium: Medium) -> None:
        self._medium = medium
        self._tail = _Tail(-1)

    def close_files(self) -> None:
        """An open file would keep the room of a segment that is dropped. They are opened again when needed."""
        self._medium.close()

    def prepare(self) -> Found:
        """As Lookup.prepare; finds nothing."""
        with suppress(FileNotFoundError):
            self._scan_tail(self._medium.segments()[-1])
        return []

    def by_id(self, topic: int, message_id: str, limit: int) -> Found:
        """As Lookup.by_id."""

        def match(section: Section, index: int) -> int | None:
            return index_of_id(section, message_id, index)

        return self._find(topic, id_hashes(topic, message_id), match, limit)

    def by_key(self, topic: int, key: str, limit: int) -> Found:
        """As Lookup.by_key."""

        def match(section: Section, index: int) -> int | None:
            return index if has_key(section, key, index) else None

        return self._find(topic, [key_hash(topic, key)], match, limit)

    def _find(
        self, topic: int, wanted: Sequence[int], match: Callable[[Section, int], int | None], limit: int
    ) -> Found:
        """The places of those hashes where there is a match, the newest first."""
        found: Found = []
        for file, following in reversed(segments(self._medium)):
            with suppress(FileNotFoundError):  # the segment was dropped meanwhile
                places = sorted(place for hash_ in wanted for place in self._candidates(file, following, hash_))
                for place in reversed(places):
                    if len(found) == limit:
                        break
                    section = read_section(self._medium, file.base, place.position)
                    if section.kind not in MESSAGE_KINDS or section.topic != topic:
                        continue  # the segment was dropped while it was read, or the hash misleads
                    index = match(section, place.index)
                    if index is not None:
                        found.append(Place(place.position, index))
            if len(found) == limit:
                break
        return found

    def by_time(self, topic: int, from_ms: int, to_ms: int, limit: int) -> Found:
        """As Lookup.by_time."""
        found: Found = []
        for file, following in segments(self._medium):
            summary = read_sealed(self._medium, file.base, following)
            if summary and (summary.last_stored_ms < from_ms or summary.first_stored_ms > to_ms):
                continue
            with suppress(FileNotFoundError):
                for frame in scan_segment(self._medium, file, following).frames():
                    if from_ms <= frame.stored_ms <= to_ms:
                        for section in _messages(frame):
                            if section.topic == topic and section.kind not in _COPIES:
                                found += (Place(section.position, index) for index in range(section.count))
                    if len(found) >= limit:
                        return found[:limit]
        return found

    def _candidates(self, file: SegmentFile, following: int | None, hash_: int) -> Found:
        if following is None:
            return self._scan_tail(file).get(hash_, [])
        name = key_index_blob(file.base)
        try:
            index = KeyIndex(self._medium.view_blob(name), file.base)
        except (ValueError, FileNotFoundError):
            scan = scan_segment(self._medium, file, following)
            keys = GrowingKeys(file.base)
            for frame in scan.frames():
                for section in _messages(frame):
                    keys.add(section)
            data = keys.seal()
            if not scan.damage:
                self._keep(name, data)
            index = KeyIndex(memoryview(data), file.base)
        return index.places(hash_)

    def _keep(self, name: str, data: bytes) -> None:
        try:
            self._medium.write_blob(name, data)
        except OSError:
            # No space, usually: it is built again the next time.
            return

    def _scan_tail(self, file: SegmentFile) -> dict[int, Found]:
        if self._tail.base != file.base:
            self._tail = _Tail(file.base)
        tail = self._tail
        scan = scan_on(self._medium, file, tail.end)
        for frame in scan.frames():
            for section in _messages(frame):
                for hash_, index in hashes(section):
                    tail.places.setdefault(hash_, []).append(Place(section.position, index))
        tail.end = scan.end
        return tail.places


class _Tail:
    """What was read of the active segment."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.end = base
        self.places: dict[int, Found] = {}


def _messages(frame: Frame) -> Iterator[Section]:
    return (section for section in frame.sections if section.kind in MESSAGE_KINDS)
