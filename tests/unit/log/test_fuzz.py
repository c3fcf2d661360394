"""Damage by chance: what a log is read from may be anything, and is never taken for what was written when it is not."""

import contextlib
import copy
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from kourou_broker.log.checksum import extend, value
from kourou_broker.log.errors import LogError
from kourou_broker.log.frame import HEADER_BYTES, MAGIC, UNSUMMED_BYTES, seal
from kourou_broker.log.key_index import KeyIndex
from kourou_broker.log.scan import SegmentScan
from tests.simulation.disk import SimDisk
from tests.simulation.time import simulate
from tests.unit.log.logs import LogOnDisk, fill, messages, record

SIZE = 2000
DAMAGES = st.lists(st.tuples(st.integers(0, SIZE), st.binary(min_size=1, max_size=40)), min_size=1, max_size=4)


def _segment() -> tuple[bytes, list[bytes]]:
    """Some frames in a row, with room behind them; and their payloads."""
    data, chain, payloads = b"", 0, []
    for number in range(8):
        section = messages(0, number, 1, bytes([number]) * 50) if number % 2 else record(bytes([number]) * 70)
        frame = seal([section], prev_crc=chain, epoch=0, position=len(data), durable=0, stored_ms=number)
        data, chain = b"".join((data, frame.head, *frame.body)), frame.crc
        payloads.append(section.payload)
    return data.ljust(SIZE + 40, b"\x00"), payloads


DATA, PAYLOADS = _segment()


def _read(data: bytes) -> list[bytes]:
    try:
        return [section.payload for frame in SegmentScan(data, 0, chain=0).frames() for section in frame.sections]
    except LogError:
        return []


def _damaged(data: bytes, damages: Sequence[tuple[int, bytes]]) -> bytes:
    for at, piece in damages:
        data = data[:at] + piece + data[at + len(piece) :]
    return data


@given(data=st.binary(max_size=400), magic=st.booleans())
@settings(max_examples=300, deadline=None)
def test_garbage_is_no_frame(data: bytes, magic: bool) -> None:
    assert _read((MAGIC if magic else b"") + data) == []


@given(damages=DAMAGES)
@settings(max_examples=300, deadline=None)
def test_of_a_damaged_segment_only_what_was_written_is_read(damages: list[tuple[int, bytes]]) -> None:
    found = _read(_damaged(DATA, damages))
    assert found == PAYLOADS[: len(found)]


@given(body=st.binary(max_size=120), sections=st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_sections_that_do_not_fill_their_frame_are_damage(body: bytes, sections: int) -> None:
    """The checksum is right: only a fault of a writer makes such a frame, and a reader still must not fall over it."""
    empty = seal([], prev_crc=0, epoch=0, position=0, durable=0, stored_ms=1)
    head = bytearray(empty.head)
    head[10:12] = sections.to_bytes(2, "little")
    head[12:16] = (HEADER_BYTES + len(body)).to_bytes(4, "little")
    head[4:8] = extend(value(bytes(head[UNSUMMED_BYTES:])), body).to_bytes(4, "little")
    scan = SegmentScan(bytes(head) + body, 0, chain=0)
    with contextlib.suppress(ValueError):
        assert all(len(frame.sections) == sections for frame in scan.frames())


@given(damages=st.lists(st.tuples(st.integers(0, 11_000), st.binary(min_size=1, max_size=300)), max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_damaged_log_is_refused_or_cut_and_never_altered(damages: list[tuple[int, bytes]]) -> None:
    async def main() -> None:
        on = LogOnDisk()
        await fill(on.open(), 30)
        on.open()
        written = on.payloads()
        disk = copy.deepcopy(on.disk)
        for at, piece in damages:
            _overwrite(disk, at, piece)
        on.disk = disk
        try:
            on.open()
        except LogError:
            return
        found = on.payloads()
        assert found == written[: len(found)]

    simulate(main())


def _overwrite(disk: SimDisk, at: int, piece: bytes) -> None:
    for base, segment in disk.segments.items():
        if base <= at < base + len(segment.durable):
            for bytes_ in (segment.cache, segment.durable):
                end = min(at - base + len(piece), len(bytes_))
                bytes_[at - base : end] = piece[: end - (at - base)]


@given(data=st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_garbage_is_no_key_index(data: bytes) -> None:
    try:
        KeyIndex(memoryview(data), 0).places(1)
    except ValueError:
        return
    raise AssertionError("garbage was taken for an index")
