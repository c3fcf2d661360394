"""The progress of all groups, found by its key and by its queue."""

from hypothesis import given
from hypothesis import strategies as st

from kourou_broker.state.progress import Progress, ProgressOfAll

_KEYS = st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(0, 2))


@given(st.lists(st.tuples(st.sampled_from(("set", "delete", "forget")), _KEYS)))
def test_both_ways_lead_to_the_same(steps: list[tuple[str, tuple[int, int, int]]]) -> None:
    found = ProgressOfAll()
    expected: dict[tuple[int, int, int], Progress] = {}
    for step, key in steps:
        if step == "set":
            found[key] = expected[key] = Progress(*key, 0)
        elif step == "forget":
            found.forget_queue(*key[1:])
            expected = {each: progress for each, progress in expected.items() if each[1:] != key[1:]}
        elif key in expected:
            del found[key], expected[key]
    assert dict(found) == expected
    for topic in (1, 2):
        for queue in range(3):
            of_queue = {key[0]: progress for key, progress in expected.items() if key[1:] == (topic, queue)}
            assert {progress.group: progress for progress in found.of_queue(topic, queue)} == of_queue
