"""From the text of a condition to its meaning. What is wrong is told with its place and with what could stand there."""

# Lark's types have gaps:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from collections.abc import Set
from typing import cast

from lark import Lark, Token, UnexpectedCharacters, UnexpectedToken
from lark.parsers.lalr_interactive_parser import InteractiveParser

from kourou_broker.operations.sql.meaning import Meaning, condition
from kourou_broker.operations.sql.operands import Condition, Mistake, Operand

MAX_LENGTH = 4096
MAX_TOKENS = 400
"""Parsing takes 5 to 10 microseconds for each, and the loop waits for it."""

_LONGEST_QUOTE = 40
_WORDS = {
    "NAME": "a property",
    "TEXT": "a string in single quotes",
    "INTEGER": "a number",
    "TRUE": "TRUE",
    "FALSE": "FALSE",
    "NULL": "NULL",
    "LPAR": "'('",
    "EQUAL": "=",
    "UNEQUAL": "<>",
    "ORDER": "<, <=, >, >=",
    "_BETWEEN": "BETWEEN",
    "_IN": "IN",
    "_IS": "IS",
    "PART": "CONTAINS, STARTSWITH, ENDSWITH",
    "NOT": "NOT",
    "_AND": "AND",
    "_OR": "OR",
    "COMMA": "','",
    "RPAR": "')'",
    "$END": "the end",
}
"""How the grammar's terminals are called, in the order in which they are named. FLOAT and SIGN go with INTEGER."""

_parser = Lark.open(
    "grammar.lark", rel_to=__file__, parser="lalr", lexer="basic", transformer=Meaning(), maybe_placeholders=False
)
_parser.parse("TRUE")  # the first text makes lark build its lexer, which takes long


class SyntaxFault(Exception):
    """The text is no condition. Its message names the place."""


def parse(text: str) -> Condition:
    """Raises SyntaxFault."""
    if len(text) > MAX_LENGTH:
        raise SyntaxFault(f"the expression has {len(text)} characters, at most {MAX_LENGTH} are allowed")
    parser = _parser.parse_interactive(text)
    try:
        return condition(_parse(parser))
    except Mistake as mistake:
        raise _fault(text, mistake.at, mistake.message) from None
    except UnexpectedToken as problem:
        token = cast("Token", problem.token)
        what, at = f"{_quoted(token)} cannot stand here", token.start_pos or 0
        if token.type == "$END":
            what, at = "the expression ends" if text.strip() else "the expression is empty", len(text)
        raise _fault(text, at, what, _accepted(text[:at])) from None
    except UnexpectedCharacters as problem:
        at = cast("int", problem.pos_in_stream)
        raise _fault(text, at, _unreadable(text[at:]), _accepted(text[:at])) from None


def _parse(parser: InteractiveParser) -> Operand:
    for number, token in enumerate(parser.iter_parse()):
        if number == MAX_TOKENS:
            raise Mistake(token.start_pos or 0, f"at most {MAX_TOKENS} words, numbers and signs are allowed")
    return cast("Operand", parser.feed_eof())


def _accepted(beginning: str) -> set[str]:
    """The terminals that could follow. The parser that failed has forgotten some of them."""
    parser = _parser.parse_interactive(beginning)
    parser.exhaust_lexer()
    return parser.accepts()


def _fault(text: str, at: int, what: str, accepted: Set[str] = frozenset()) -> SyntaxFault:
    line_begins = text.rfind("\n", 0, at) + 1
    line = text.count("\n", 0, at) + 1
    expected = _listed([word for terminal, word in _WORDS.items() if terminal in accepted])
    place = f"line {line}, column {at - line_begins + 1} (position {at})"
    return SyntaxFault(f"{place}: {what}" + (f"; expected: {expected}" if expected else ""))


def _unreadable(rest: str) -> str:
    if rest.startswith("'"):
        return "the string that begins here has no end"
    if rest.startswith("/*"):
        return "the comment that begins here has no end"
    return f"{rest[0]!r} cannot stand here"


def _quoted(token: Token) -> str:
    return repr(token[:_LONGEST_QUOTE] + "…" if len(token) > _LONGEST_QUOTE else str(token))


def _listed(words: list[str]) -> str:
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1] if words else "") if part)
