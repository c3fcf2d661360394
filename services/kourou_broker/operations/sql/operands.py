"""The operands of conditions, each with a type: properties, literals, and conditions in conditions."""

from typing import NamedTuple

from kourou_broker.operations.sql import conditions
from kourou_broker.operations.sql.conditions import Number, Numeric, Test, constant
from kourou_broker.operations.sql.properties import Read

MAX_DEPTH = 64
"""Conditions in conditions: what is evaluated is called so deep."""


class Mistake(Exception):
    """What is written can be read, and makes no sense. `at`: where, in characters from the beginning."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at
        self.message = message


class Property(NamedTuple):
    at: int
    name: str
    read: Read


class Literal(NamedTuple):
    at: int
    value: str | Number | bool | None


class Condition(NamedTuple):
    at: int
    test: Test
    names: frozenset[str]
    """Of the properties that it reads."""
    depth: int
    size: int
    """How many comparisons it takes, at most."""
    tags: frozenset[str] | None
    """It is true of no message with another tag; None: it may be true of any."""


Operand = Property | Literal | Condition


def made(test: Test, first: Operand, *others: Operand, tags: frozenset[str] | None = None) -> Condition:
    operands = (first, *others)
    inner = [operand for operand in operands if isinstance(operand, Condition)]
    depth = 1 + max((each.depth for each in inner), default=0)
    if depth > MAX_DEPTH:
        raise Mistake(first.at, f"more than {MAX_DEPTH} conditions are nested here")
    names = {operand.name for operand in operands if isinstance(operand, Property)}
    size = sum(each.size for each in inner) or 1
    return Condition(first.at, test, frozenset(names).union(*(each.names for each in inner)), depth, size, tags)


def kind_of(operand: Operand) -> type:
    """bool, float, str, or NoneType for NULL; properties are text."""
    match operand:
        case Condition() | Literal(value=bool()):
            return bool
        case Literal(value=int() | float()):
            return float
        case Property():
            return str
        case Literal():
            return type(operand.value)


def text_from(operand: Operand) -> Read:
    match operand:
        case Property():
            return operand.read
        case Literal(value=str() as text):
            return constant(text)
        case _:
            raise AssertionError(f"{described(operand)} is no text")


def number_from(operand: Operand) -> Numeric:
    match operand:
        case Literal(value=(int() | float()) as number):
            return constant(number)
        case _:
            return conditions.as_number(text_from(operand))


def truth_from(operand: Operand) -> Test:
    match operand:
        case Condition():
            return operand.test
        case Literal(value=bool() as truth):
            return constant(truth)
        case _:
            return conditions.as_truth(text_from(operand))


def described(operand: Operand) -> str:
    match operand:
        case Condition():
            return "a condition"
        case Property():
            return f"the property {operand.name[:40]}"
        case Literal(value=bool() as truth):
            return str(truth).upper()
        case Literal(value=None):
            return "NULL"
        case Literal(value=str()):
            return "a string"
        case Literal():
            return "a number"
