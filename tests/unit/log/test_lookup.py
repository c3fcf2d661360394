"""Messages by id, key and time."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from kourou.protocol.apache.rocketmq.v2.definition_pb2 import SystemProperties
from kourou_broker.log.file_medium import FileMedium
from kourou_broker.log.key_index import GrowingKeys, KeyIndex, Place, id_hashes, key_hash
from kourou_broker.log.log import Log
from kourou_broker.log.lookup import Lookup, Searcher, find_id, find_key, find_time
from kourou_broker.log.options import LogOptions
from kourou_broker.log.section import Section, SectionKind
from kourou_broker.log.worker import ThreadWorker


def _section(topic: int, base: int, messages: list[tuple[str, list[str]]]) -> Section:
    table, bodies = b"", b""
    for message_id, keys in messages:
        properties = SystemProperties(message_id=message_id, keys=keys).SerializeToString()
        table += b"".join(number.to_bytes(4, "little") for number in (100, len(properties), 0))
        bodies += bytes(100) + properties
    return Section(SectionKind.MESSAGES, 1, topic, 0, base, len(messages), table + bodies)


class _Stored:
    """A log of 60 sections of 3 messages, over some segments; message n has the id "id-n" and two keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: list[Place] = []

    async def __aenter__(self) -> "_Stored":
        self.medium = FileMedium(self.folder)
        self.worker = ThreadWorker("worker")
        options = LogOptions(segment_bytes=4096, disk_watermark_bytes=0)
        self.log = Log.recover(self.medium, self.worker, options, 0, lambda frame: None)
        for number in range(60):
            self.append(number)
        return self

    def append(self, number: int) -> None:
        messages = [(f"id-{3 * number + n}", [f"key-{number % 7}", f"part-{n}"]) for n in range(3)]
        other = _section(2, 3 * number, [("id-0", ["key-0"])])
        appended = self.log.append([other, _section(1, 3 * number, messages)], 1000 + number)
        self.places += (Place(appended.section_positions[1], n) for n in range(3))

    async def __aexit__(self, *_: object) -> None:
        await self.log.close()
        self.worker.close()
        self.medium.close()


async def test_messages_are_found_in_sealed_and_active_segments(tmp_path: Path) -> None:
    async with _Stored(tmp_path) as stored:
        await stored.log.close()
        assert len(stored.medium.segments()) > 5
        for again in range(2):
            for number in (0, 1, 77, 178, 179):
                assert find_id(tmp_path, 1, f"id-{number}", 10) == [stored.places[number]]
            assert find_id(tmp_path, 1, "id-180", 10) == []
            assert find_id(tmp_path, 3, "id-1", 10) == []
            key_3 = [place for number in range(3, 60, 7) for place in stored.places[3 * number : 3 * number + 3]]
            assert find_key(tmp_path, 1, "key-3", 1000) == key_3[::-1]
            assert find_key(tmp_path, 1, "key-3", 4) == key_3[::-1][:4]
            indexes = [name for name in stored.medium.list_blobs() if name.startswith("keys-")]
            assert len(indexes) == len(stored.medium.segments()) - 1
            if not again:
                (tmp_path / "blobs" / indexes[0]).write_bytes(b"damaged")


async def test_what_is_added_to_the_active_segment_is_found(tmp_path: Path) -> None:
    async with _Stored(tmp_path) as stored:
        assert find_id(tmp_path, 1, "id-180", 1) == []
        stored.append(60)
        await stored.log.close()
        assert find_id(tmp_path, 1, "id-180", 1) == [stored.places[180]]


async def test_what_was_prepared_is_not_read_again(tmp_path: Path) -> None:
    async with _Stored(tmp_path) as stored:
        await stored.log.close()
        searcher = Searcher(stored.medium)
        assert searcher.prepare() == []
        read: list[int] = []
        whole = stored.medium.read

        def reading(base: int, offset: int, size_bytes: int) -> bytes:
            read.append(offset)
            return whole(base, offset, size_bytes)

        stored.medium.read = reading
        assert searcher.by_id(1, "id-179", 1) == [stored.places[179]]
        assert 0 not in read


async def test_by_time(tmp_path: Path) -> None:
    async with _Stored(tmp_path) as stored:
        await stored.log.close()
        assert find_time(tmp_path, 1, 1010, 1019, 1000) == stored.places[30:60]
        assert find_time(tmp_path, 1, 1010, 1019, 5) == stored.places[30:35]
        assert find_time(tmp_path, 1, 0, 999, 5) == []
        assert find_time(tmp_path, 1, 1059, 5000, 50) == stored.places[177:]


async def test_in_a_helper_process(tmp_path: Path) -> None:
    async with _Stored(tmp_path) as stored:
        await stored.log.close()
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:

            async def run(job: Any, *args: Any) -> Any:
                return pool.submit(job, *args).result()

            lookup = Lookup(tmp_path, run)
            assert await lookup.by_id(1, "id-5", 1) == [stored.places[5]]
            assert await lookup.by_key(1, "part-2", 1) == [stored.places[179]]
            assert await lookup.by_time(1, 1000, 1000, 9) == stored.places[:3]


def test_a_key_index_finds_its_hashes() -> None:
    section = _section(1, 0, [("a", []), ("b", ["k"]), ("a", [])])._replace(position=5000)
    keys = GrowingKeys(4000)
    keys.add(section)
    index = KeyIndex(memoryview(keys.seal()), 4000)
    assert index.places(id_hashes(1, "a")[0]) == [Place(5000, 0), Place(5000, 2)]
    assert index.places(id_hashes(2, "a")[0]) == []


def test_held_and_carried_messages_are_in_the_key_index() -> None:
    """Their messages lie behind what else the record says."""
    plain = _section(1, 0, [("a", []), ("b", ["k"])])
    keys = GrowingKeys(0)
    before = {SectionKind.CARRY: 8, SectionKind.HELD: 2 * 16, SectionKind.HELD_CARRIED: 2 * 28}
    for kind, size in before.items():
        keys.add(plain._replace(kind=kind, position=kind, payload=b"\xff" * size + plain.payload))
    index = KeyIndex(memoryview(keys.seal()), 0)
    assert index.places(id_hashes(1, "b")[0]) == [Place(kind, 1) for kind in before]
    assert index.places(key_hash(1, "k")) == [Place(kind, 1) for kind in before]
