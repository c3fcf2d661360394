"""SQL expressions by chance, and beside each what it means, by the plainest of evaluators."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from hypothesis import strategies as st

Values = Mapping[str, str]
Meaning = Callable[[Values], bool | None]


class Expression(NamedTuple):
    text: str
    meaning: Meaning
    level: int
    """How tightly it holds together: 0 OR, 1 AND, 2 NOT, 3 a comparison."""


class Operand(NamedTuple):
    text: str
    value: Callable[[Values], str | int | float | bool | None]


NAMES = ("a", "b", "C", "$d_1", "android")
TEXTS = (
    *("", "1", "1.0", "2", "-3", "007", "2.5e0", "1e400", "9007199254740993"),
    *("x", "it's", "true", "TRUE", "false", "x true"),
)
NAME = st.sampled_from(NAMES)
TEXT = st.sampled_from(TEXTS) | st.text(max_size=4)
NUMBER = (
    st.sampled_from((0, 1, 2, -3, 7, 2.5, 9007199254740992))
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
PROPERTIES = st.dictionaries(NAME, TEXT)


def number_in(value: str | float | None) -> float | None:
    """A number if a text is one in plain digits."""
    if value is None or not isinstance(value, str):
        return value
    if not value or set(value) - set("0123456789+-.eE"):
        return None
    try:
        return float(value) if set(value) & set(".eE") else int(value)
    except ValueError:
        return None


def truth_in(value: str | bool | None) -> bool | None:
    return value.lower() == "true" if isinstance(value, str) else value


def both(one: bool | None, other: bool | None) -> bool | None:
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def opposite(value: bool | None) -> bool | None:
    return None if value is None else not value


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@st.composite
def word(draw: st.DrawFn, text: str) -> str:
    """In any case, with spaces or comments around it."""
    space = st.sampled_from((" ", " ", "\n", "\t", " /* * ( */ ", " -- '\n"))
    return draw(space) + draw(st.sampled_from((text, text.lower(), text.capitalize()))) + draw(space)


PROPERTY = NAME.map(lambda name: Operand(name, lambda values: values.get(name)))
LITERAL_NUMBER = NUMBER.map(lambda number: Operand(repr(number), lambda _values: number))
LITERAL_TEXT = TEXT.map(lambda text: Operand(quoted(text), lambda _values: text))
LITERAL_TRUTH = st.booleans().map(lambda truth: Operand(str(truth), lambda _values: truth))
NUMERIC = PROPERTY | LITERAL_NUMBER
ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


def ordered(one: Operand, order: str, other: Operand, values: Values) -> bool | None:
    left, right = number_in(one.value(values)), number_in(other.value(values))  # type: ignore[arg-type]
    return None if left is None or right is None else ORDERS[order](left, right)


@st.composite
def by_size(draw: st.DrawFn) -> Expression:
    one, other, order = draw(NUMERIC), draw(NUMERIC), draw(st.sampled_from(sorted(ORDERS)))
    text = one.text + draw(word(order)) + other.text
    return Expression(text, lambda values: ordered(one, order, other, values), 3)


@st.composite
def equal(draw: st.DrawFn) -> Expression:
    kind = draw(st.sampled_from((LITERAL_NUMBER, LITERAL_TEXT, LITERAL_TRUTH, PROPERTY)))
    one, other = draw(st.permutations((draw(kind), draw(PROPERTY))))
    wanted = draw(st.booleans())

    def meaning(values: Values) -> bool | None:
        left, right = one.value(values), other.value(values)
        if kind is LITERAL_NUMBER:
            left, right = number_in(left), number_in(right)  # type: ignore[arg-type]
        if kind is LITERAL_TRUTH:
            left, right = truth_in(left), truth_in(right)  # type: ignore[arg-type]
        return None if left is None or right is None else (left == right) is wanted

    return Expression(one.text + draw(word("=" if wanted else "<>")) + other.text, meaning, 3)


@st.composite
def between(draw: st.DrawFn) -> Expression:
    value, wanted = draw(NUMERIC), draw(st.booleans())
    bounds = [draw(NUMERIC), draw(NUMERIC)]
    with suppress(TypeError):  # a property may be any number
        bounds.sort(key=lambda bound: bound.value({}))  # type: ignore[arg-type, return-value]
    low, high = bounds
    words = "BETWEEN" if wanted else "NOT BETWEEN"
    text = value.text + draw(word(words)) + low.text + draw(word("AND")) + high.text

    def meaning(values: Values) -> bool | None:
        result = both(ordered(value, ">=", low, values), ordered(value, "<=", high, values))
        return result if wanted else opposite(result)

    return Expression(text, meaning, 3)


@st.composite
def one_of(draw: st.DrawFn) -> Expression:
    operand, texts, wanted = draw(PROPERTY), draw(st.lists(TEXT, min_size=1, max_size=6)), draw(st.booleans())
    text = operand.text + draw(word("IN" if wanted else "NOT IN")) + "(" + ",".join(map(quoted, texts)) + ")"

    def meaning(values: Values) -> bool | None:
        value = operand.value(values)
        return None if value is None else (value in texts) is wanted

    return Expression(text, meaning, 3)


@st.composite
def is_null(draw: st.DrawFn) -> Expression:
    operand, wanted = draw(PROPERTY | LITERAL_TEXT | LITERAL_NUMBER), draw(st.booleans())
    text = operand.text + draw(word("IS NULL" if wanted else "IS NOT NULL"))
    return Expression(text, lambda values: (operand.value(values) is None) is wanted, 3)


@st.composite
def part(draw: st.DrawFn) -> Expression:
    operand, sought, wanted = draw(PROPERTY | LITERAL_TEXT), draw(TEXT), draw(st.booleans())
    name = draw(st.sampled_from(("CONTAINS", "STARTSWITH", "ENDSWITH")))
    text = operand.text + draw(word(name if wanted else f"NOT {name}")) + quoted(sought)

    def meaning(values: Values) -> bool | None:
        value = operand.value(values)
        if not isinstance(value, str) or not sought:
            return False
        at = {"CONTAINS": range(len(value)), "STARTSWITH": [0], "ENDSWITH": [len(value) - len(sought)]}[name]
        return any(value[each : each + len(sought)] == sought for each in at if each >= 0) is wanted

    return Expression(text, meaning, 3)


TRUTHS = st.sampled_from((True, False, None)).map(
    lambda truth: Expression("NULL" if truth is None else str(truth).upper(), lambda _values: truth, 3)
)


@st.composite
def alone(draw: st.DrawFn) -> Expression:
    name = draw(NAME)
    return Expression(name, lambda values: truth_in(values.get(name)), 3)


def inside(expression: Expression, level: int) -> str:
    """In parentheses where it would come apart."""
    return f"({expression.text})" if expression.level < level else expression.text


@st.composite
def joined(draw: st.DrawFn, inner: st.SearchStrategy[Expression]) -> Expression:
    level = draw(st.sampled_from((0, 1)))
    parts = draw(st.lists(inner, min_size=2, max_size=4))
    between = draw(word("AND" if level else "OR"))

    def meaning(values: Values) -> bool | None:
        found = [part.meaning(values) for part in parts]
        decisive = not level
        return decisive if decisive in found else None if None in found else not decisive

    # a part of the same level stands in parentheses, too: it is one part
    return Expression(between.join(inside(part, level + 1) for part in parts), meaning, level)


@st.composite
def negated(draw: st.DrawFn, inner: st.SearchStrategy[Expression]) -> Expression:
    part = draw(inner)
    return Expression(draw(word("NOT")) + inside(part, 2), lambda values: opposite(part.meaning(values)), 2)


@st.composite
def unknown(draw: st.DrawFn, inner: st.SearchStrategy[Expression]) -> Expression:
    part = draw(inner)
    return Expression(f"({part.text})" + draw(word("IS NULL")), lambda values: part.meaning(values) is None, 3)


def expressions() -> st.SearchStrategy[Expression]:
    leaves = by_size() | equal() | between() | one_of() | is_null() | part() | alone() | TRUTHS
    return st.recursive(leaves, lambda inner: joined(inner) | negated(inner) | unknown(inner), max_leaves=12)
