from __future__ import annotations

import pytest

from kourou import names


@pytest.mark.parametrize("name", ["a", "flights", "A-b_9%c", "x" * 127, "%DLQ%flights"])
def test_legal_topics(name: str) -> None:
    assert names.topic_fault(name) is None


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a\n", "ü", "x" * 128, "a/b", "a|b"])
def test_illegal_topics_are_told_why(name: str) -> None:
    assert "topic name" in (names.topic_fault(name) or "")
    assert names.new_topic_fault(name) is not None


@pytest.mark.parametrize("name", ["%DLQ%g", "%RETRY%g", "TBW102", "rmq_sys_x", "RMQ_SYS_TRACE_TOPIC"])
def test_reserved_names_cannot_be_created(name: str) -> None:
    assert "reserved" in (names.new_topic_fault(name) or "")
    assert "reserved" in (names.group_fault(name) or "")


def test_the_longest_group_has_a_legal_dead_letter_topic() -> None:
    group = "g" * names.MAX_GROUP_CHARS
    assert names.group_fault(group) is None
    assert names.group_fault(group + "g") is not None
    topic = names.dead_letter_topic(group)
    assert names.topic_fault(topic) is None
    assert names.dead_letter_group(topic) == group
    assert names.dead_letter_group("flights") is None


def test_namespaces() -> None:
    assert names.namespace_fault("") is None
    assert names.namespace_fault("team-a") is None
    assert names.namespace_fault("a%b") is not None
    assert names.namespace_fault("n" * 128) is not None
