"""The sections that several groups share."""

from kourou_broker.operations.open_sections import OpenSections


def test_the_one_that_was_asked_for_longest_ago_goes() -> None:
    sections = OpenSections[str](100)
    sections.add(1, "a", 40)
    sections.add(2, "b", 40)
    assert sections.get(1) == "a"
    sections.add(3, "c", 40)
    assert [sections.get(position) for position in (1, 2, 3)] == ["a", None, "c"]


def test_one_that_is_too_large_is_kept_until_the_next_comes() -> None:
    sections = OpenSections[str](100)
    sections.add(1, "a", 40)
    sections.add(2, "large", 1000)
    assert [sections.get(position) for position in (1, 2)] == [None, "large"]
    sections.add(3, "c", 40)
    assert [sections.get(position) for position in (2, 3)] == [None, "c"]


def test_one_that_is_added_again_counts_once() -> None:
    sections = OpenSections[str](100)
    for _ in range(10):
        sections.add(1, "a", 40)
    sections.add(2, "b", 40)
    assert [sections.get(position) for position in (1, 2)] == ["a", "b"]
