"""Sealed segments are verified one after the other."""

from types import SimpleNamespace
from typing import Any, cast

from kourou_broker.operations.scrubbing import Scrubbing


async def test_each_sealed_segment_in_turn_and_then_the_first_again():
    seen: list[int] = []

    async def scrub(base: int) -> str | None:
        seen.append(base)
        return "rot" if base == 200 else None

    segments = [SimpleNamespace(base=base, sealed=base < 300) for base in (100, 200, 300)]
    log = cast("Any", SimpleNamespace(segments=lambda: segments))
    scrubbing = Scrubbing(log, scrub, interval_s=1)
    assert [await scrubbing.check() for _ in range(3)] == [None, "rot", None]
    assert seen == [100, 200, 100]
    assert scrubbing.damaged == {200}
    segments.clear()
    assert await scrubbing.check() is None
    assert seen == [100, 200, 100]
