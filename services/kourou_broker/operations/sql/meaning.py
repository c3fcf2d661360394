"""What the rules of the grammar mean: operands with a type, from the leaves up.

The rules are RocketMQ's: properties are text, and become numbers or truth values beside such. What can never be
meant, as 'a' < 5, is a mistake here and not a message that never comes.
"""

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import cast

from lark import Token, Transformer, v_args  # pyright: ignore[reportUnknownVariableType]

from kourou_broker.operations.sql import conditions
from kourou_broker.operations.sql.conditions import Number, Numeric, constant
from kourou_broker.operations.sql.operands import (
    Condition,
    Literal,
    Mistake,
    Operand,
    Property,
    described,
    kind_of,
    made,
    number_from,
    text_from,
    truth_from,
)
from kourou_broker.operations.sql.properties import reads

_TAGS = "TAGS"
_MAX_LONG_DIGITS = 19
_ORDERS: dict[str, Callable[[Number, Number], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_PARTS: dict[str, Callable[[str, str], bool]] = {
    "CONTAINS": operator.contains,
    "STARTSWITH": str.startswith,
    "ENDSWITH": str.endswith,
}


@v_args(inline=True)  # one argument for each part of a rule
class Meaning(Transformer[Token, Operand]):
    """Called by the parser for each rule, with what the rule's parts have become. Raises Mistake."""

    def property(self, name: Token) -> Property:
        return Property(_at(name), str(name), reads(name))

    def text(self, token: Token) -> Literal:
        return Literal(_at(token), _unquoted(token))

    def number(self, *tokens: Token) -> Literal:
        *signs, digits = tokens
        minus = sum(sign == "-" for sign in signs) % 2
        value = _float(digits) if digits.type == "FLOAT" else _long(digits, minus)
        return Literal(_at(tokens[0]), -value if minus else value)

    def true(self, token: Token) -> Literal:
        return Literal(_at(token), True)

    def false(self, token: Token) -> Literal:
        return Literal(_at(token), False)

    def null(self, token: Token) -> Literal:
        return Literal(_at(token), None)

    def equal(self, left: Operand, _sign: Token, right: Operand) -> Condition:
        return _equal(left, right)

    def unequal(self, left: Operand, _sign: Token, right: Operand) -> Condition:
        return _negated(_equal(left, right))

    def is_null(self, operand: Operand, *_words: Token) -> Condition:
        match operand:
            case Property():
                return made(conditions.missing(operand.read), operand)
            case Literal():
                return made(constant(operand.value is None), operand)
            case Condition():
                return made(conditions.missing(operand.test), operand)

    def is_not_null(self, operand: Operand, *words: Token) -> Condition:
        return _negated(self.is_null(operand, *words))

    def order(self, left: Operand, sign: Token, right: Operand) -> Condition:
        return made(conditions.compared(_ordered(left, sign), _ORDERS[sign], _ordered(right, sign)), left, right)

    def between(self, value: Operand, low: Operand, high: Operand) -> Condition:
        number, lowest, highest = (_ordered(operand, "BETWEEN") for operand in (value, low, high))
        bounds = [cast("Number", bound.value) for bound in (low, high) if isinstance(bound, Literal)]
        if bounds != sorted(bounds):
            raise Mistake(low.at, f"nothing is BETWEEN {bounds[0]} AND {bounds[1]}: the lower bound comes first")
        return made(conditions.between(number, lowest, highest), value, low, high)

    def not_between(self, value: Operand, _not: Token, low: Operand, high: Operand) -> Condition:
        return _negated(self.between(value, low, high))

    def one_of(self, operand: Operand, *texts: Token) -> Condition:
        if not isinstance(operand, Property):
            raise Mistake(operand.at, f"IN asks what a property is, not {described(operand)}")
        values = frozenset(map(_unquoted, texts))
        return made(conditions.one_of(operand.read, values), operand, tags=values if operand.name == _TAGS else None)

    def none_of(self, operand: Operand, _not: Token, *texts: Token) -> Condition:
        return _negated(self.one_of(operand, *texts))

    def part(self, operand: Operand, word: Token, sought: Token) -> Condition:
        return _part(operand, word, sought, wanted=True)

    def not_part(self, operand: Operand, _not: Token, word: Token, sought: Token) -> Condition:
        return _part(operand, word, sought, wanted=False)

    def negation(self, _not: Token, operand: Operand) -> Condition:
        return _negated(condition(operand))

    def conjunction(self, *operands: Operand) -> Condition:
        parts = [condition(operand) for operand in operands]
        tags = [part.tags for part in parts if part.tags is not None]
        common = reduce(frozenset[str].intersection, tags) if tags else None
        return made(conditions.all_of([part.test for part in parts]), *parts, tags=common)

    def disjunction(self, *operands: Operand) -> Condition:
        parts = [condition(operand) for operand in operands]
        tags = [part.tags for part in parts if part.tags is not None]
        united = frozenset[str]().union(*tags) if len(tags) == len(parts) else None
        return made(conditions.any_of([part.test for part in parts]), *parts, tags=united)


def condition(operand: Operand) -> Condition:
    """The operand as what is true or not. Raises Mistake."""
    match operand:
        case Condition():
            return operand
        case Property():
            return made(conditions.as_truth(operand.read), operand)
        case Literal(value=bool() | None as value):
            return made(constant(value), operand)
        case Literal():
            raise Mistake(operand.at, f"{described(operand)} is no condition: compare it with something")


def _equal(left: Operand, right: Operand) -> Condition:
    for operand in (left, right):
        if isinstance(operand, Literal) and operand.value is None:
            raise Mistake(operand.at, "nothing equals NULL: write IS NULL or IS NOT NULL")
    kinds = {kind_of(left), kind_of(right)}
    if kinds == {bool, float}:
        raise Mistake(right.at, f"{described(left)} cannot be compared with {described(right)}")
    of_kind = truth_from if bool in kinds else number_from if float in kinds else text_from
    test = conditions.compared(of_kind(left), operator.eq, of_kind(right))
    return made(test, left, right, tags=_required_tag(left, right))


def _required_tag(left: Operand, right: Operand) -> frozenset[str] | None:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Property) and one.name == _TAGS and isinstance(other, Literal):
            return frozenset([other.value]) if isinstance(other.value, str) else None
    return None


def _ordered(operand: Operand, word: str) -> Numeric:
    """The operand of a comparison by size, or of BETWEEN."""
    if isinstance(operand, Property) or kind_of(operand) is float:
        return number_from(operand)
    raise Mistake(operand.at, f"{word} compares numbers and properties, not {described(operand)}")


def _part(operand: Operand, word: Token, sought: Token, *, wanted: bool) -> Condition:
    if isinstance(operand, Condition) or kind_of(operand) is not str:
        raise Mistake(operand.at, f"{word.upper()} asks of a property or a string, not of {described(operand)}")
    holds = _PARTS[word.upper()]
    return made(conditions.part(text_from(operand), holds, _unquoted(sought), wanted=wanted), operand)


def _negated(condition: Condition) -> Condition:
    return made(conditions.negated(condition.test), condition)


def _at(token: Token) -> int:
    return token.start_pos or 0


def _unquoted(token: Token) -> str:
    return token[1:-1].replace("''", "'")


def _long(token: Token, minus: int) -> int:
    digits = token.rstrip("lL")
    value = int(digits[: _MAX_LONG_DIGITS + 1])
    if len(digits) > _MAX_LONG_DIGITS or value >= 2**63 + minus:
        raise Mistake(_at(token), "a whole number has 64 bits: with a point or an exponent it may be larger")
    return value


def _float(token: Token) -> float:
    value = float(token)
    if math.isinf(value) or (value == 0 and token.lower().partition("e")[0].strip("0.")):
        raise Mistake(_at(token), "the number is beyond what a double can hold")
    return value
