"""The tail cache gives what the log has in that range, or nothing."""

from hypothesis import given
from hypothesis import strategies as st

from kourou_broker.log.cache import TailCache

HEAD_BYTES = 3
"""Of a frame, which the cache does not have."""
FRAMES = st.lists(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=4), min_size=1, max_size=8)


@given(FRAMES, st.data())
def test_a_range_is_read_over_the_pieces_of_a_frame(frames: list[list[bytes]], data: st.DataObject) -> None:
    cache, log, bodies = TailCache(1 << 20), b"", set[int]()
    for frame in frames:
        log += b"h" * HEAD_BYTES
        cache.add(len(log), frame)
        bodies.update(range(len(log), len(log) + sum(map(len, frame))))
        log += b"".join(frame)
    start = data.draw(st.integers(0, len(log)))
    end = data.draw(st.integers(start + 1, len(log) + 2))
    wanted = log[start:end] if bodies.issuperset(range(start, end)) else None
    assert cache.read(start, end - start) == wanted


@given(FRAMES, st.integers(0, 40))
def test_what_is_not_written_stays(frames: list[list[bytes]], limit_bytes: int) -> None:
    cache, position, written = TailCache(limit_bytes), 0, 0
    for number, frame in enumerate(frames):
        position += HEAD_BYTES
        cache.add(position, frame)
        position += sum(map(len, frame))
        if number == len(frames) // 2:
            written = position
    cache.evict(written)
    at = position
    for frame in reversed(frames):
        body = b"".join(frame)
        at -= len(body)
        found = cache.read(at, len(body))
        assert found == body or (found is None and at < written)
        at -= HEAD_BYTES
