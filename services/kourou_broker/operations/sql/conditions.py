"""What conditions say of a message's properties: true, false, or None for unknown, in SQL's three-valued logic."""

import operator
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from kourou_broker.operations.sql.properties import Properties, Read

T = TypeVar("T")
Number = int | float
Test = Callable[[Properties], bool | None]
Numeric = Callable[[Properties], Number | None]

_MAX_NUMBER_LENGTH = 400
_number = re.compile(r"[+-]?(?:\d+(\.\d*)?|(\.\d+))([eE][+-]?\d+)?", re.ASCII).fullmatch


def number_in(text: str) -> Number | None:
    """Exact for whole numbers of any size."""
    if len(text) > _MAX_NUMBER_LENGTH:
        return None
    match = _number(text)
    if match is None:
        return None
    return int(text) if match.lastindex is None else float(text)


def truth_of(text: str) -> bool:
    """As in Java: what is not true is false."""
    return len(text) == 4 and text.lower() == "true"


def as_number(read: Read) -> Numeric:
    def numeric(properties: Properties) -> Number | None:
        text = read(properties)
        return None if text is None else number_in(text)

    return numeric


def as_truth(read: Read) -> Test:
    def test(properties: Properties) -> bool | None:
        text = read(properties)
        return None if text is None else truth_of(text)

    return test


def constant(value: T) -> Callable[[Properties], T]:
    return lambda _properties: value


def compared(
    left: Callable[[Properties], T | None], holds: Callable[[T, T], bool], right: Callable[[Properties], T | None]
) -> Test:
    """Unknown if either side is."""

    def test(properties: Properties) -> bool | None:
        one = left(properties)
        if one is None:
            return None
        other = right(properties)
        return None if other is None else holds(one, other)

    return test


def between(value: Numeric, low: Numeric, high: Numeric) -> Test:
    return all_of([compared(value, operator.ge, low), compared(value, operator.le, high)])


def one_of(read: Read, values: frozenset[str]) -> Test:
    def test(properties: Properties) -> bool | None:
        text = read(properties)
        return None if text is None else text in values

    return test


def part(read: Read, holds: Callable[[str, str], bool], sought: str, *, wanted: bool) -> Test:
    """As in RocketMQ: what is not there has no part and lacks none, and nothing has an empty part or lacks it."""
    if not sought:
        return constant(False)

    def test(properties: Properties) -> bool:
        text = read(properties)
        return text is not None and holds(text, sought) is wanted

    return test


def missing(value: Callable[[Properties], object]) -> Test:
    """Whether a property is not there, or a condition unknown."""
    return lambda properties: value(properties) is None


def negated(test: Test) -> Test:
    def opposite(properties: Properties) -> bool | None:
        value = test(properties)
        return None if value is None else not value

    return opposite


def all_of(tests: Sequence[Test]) -> Test:
    def test(properties: Properties) -> bool | None:
        result: bool | None = True
        for each in tests:
            value = each(properties)
            if value is False:
                return False
            if value is None:
                result = None
        return result

    return test


def any_of(tests: Sequence[Test]) -> Test:
    def test(properties: Properties) -> bool | None:
        result: bool | None = False
        for each in tests:
            value = each(properties)
            if value:
                return True
            if value is None:
                result = None
        return result

    return test
