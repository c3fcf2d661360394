"""The history index of a segment: what may concern an offset is found, and what is damaged is noticed."""

import contextlib
import random
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kourou_broker.log.checksum import value
from kourou_broker.log.history_index import GrowingHistory, Row, SealedHistory
from kourou_broker.log.index import queue_key

BASE = 1 << 33

_spans = st.lists(
    st.tuples(
        st.sampled_from([(1, 0), (1, 1), (2, 0)]),
        st.integers(0, 6000),
        st.integers(0, 3000),
        st.integers(1, 3),
        st.booleans(),
    ),
    max_size=40,
)


def _filled(spans: list[tuple[tuple[int, int], int, int, int, bool]]) -> GrowingHistory:
    history = GrowingHistory(BASE)
    for number, ((topic, queue), first, length, group, is_sweep) in enumerate(spans):
        row = Row(BASE + 100 * number, 1_700_000_000_000 + number, 4, group, first if is_sweep else None)
        if is_sweep:
            history.sweep(topic, queue, row)
        else:
            history.span(topic, queue, first, first + length, row)
    return history


@given(_spans, st.lists(st.integers(0, 9000), max_size=20))
def test_sealed_and_growing_find_the_same(
    spans: list[tuple[tuple[int, int], int, int, int, bool]], offsets: list[int]
) -> None:
    growing = _filled(spans)
    sealed = SealedHistory(memoryview(growing.seal()), BASE)
    edges = [edge for _, first, length, _, _ in spans for edge in (first, first + length, first + length + 1)]
    for key in ((1, 0), (1, 1), (2, 0), (3, 0)):
        for offset in (*offsets, *edges):
            expected = [
                BASE + 100 * number
                for number, (of, first, length, _, is_sweep) in enumerate(spans)
                if of == key and (is_sweep or first <= offset <= first + length)
            ]
            found = sealed.rows(*key, offset)
            assert [row.position for row in found] == expected
            assert found == growing.rows(*key, offset)


def test_an_index_of_nothing() -> None:
    sealed = SealedHistory(memoryview(GrowingHistory(BASE).seal()), BASE)
    assert sealed.rows(1, 0, 5) == []


def test_any_damaged_byte_is_noticed() -> None:
    growing = GrowingHistory(BASE)
    for number in range(20):
        growing.span(1, 0, number, number + 2, Row(BASE + number, 5, 4, 1, None))
        growing.sweep(1, 0, Row(BASE + number, 5, 6, 2, 7))
    whole = growing.seal()
    rng = random.Random(1)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << rng.randrange(8)
        with pytest.raises(ValueError, match=r"damaged|another version|cut off"):
            SealedHistory(memoryview(bytes(damaged)), BASE).rows(1, 0, 10)
    for length in range(0, len(whole), 7):
        with pytest.raises(ValueError, match=r"damaged|another version|cut off|too short"):
            SealedHistory(memoryview(whole[:length]), BASE).rows(1, 0, 10)
    with pytest.raises(ValueError, match="another version"):
        SealedHistory(memoryview(whole), BASE + 8)


@given(data=st.binary(max_size=300))
def test_garbage_is_no_index(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"damaged|another version|too short"):
        SealedHistory(memoryview(data), BASE)


@given(words=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 20), max_size=20), offset=st.integers(0, 2**40))
def test_words_that_only_a_fault_of_the_writer_leaves_are_an_error_or_nothing(words: list[int], offset: int) -> None:
    """The checksum of the directory is right, and what it says is not."""
    queue = queue_key(1, 0).to_bytes(8, "little")
    head = queue + array("Q", (words + [0] * 4)[:4]).tobytes()
    blob = struct.pack("=4sIIIQ", b"KRUh", 1, value(head), 1, BASE) + head + array("Q", words[4:]).tobytes()
    with contextlib.suppress(ValueError):
        SealedHistory(memoryview(blob), BASE).rows(1, 0, offset)
