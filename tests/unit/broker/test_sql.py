"""SQL92 conditions by themselves: what they say of properties, what is refused and where, and texts by chance."""

import re
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations.message import tag_hash
from kourou_broker.operations.section_reader import StoredMessage
from kourou_broker.operations.sql.parser import MAX_LENGTH, MAX_TOKENS, SyntaxFault, parse
from kourou_broker.operations.sql.properties import Properties
from kourou_broker.operations.sql_filter import compile_sql
from kourou_service.refusal import Refused
from tests.unit.broker.sql_expressions import PROPERTIES, Expression, expressions

NO_SYSTEM = definition_pb2.SystemProperties()


def evaluated(expression: str, **properties: str) -> bool | None:
    return parse(expression).test(Properties(properties, NO_SYSTEM))


def fault(expression: str) -> str:
    with pytest.raises(SyntaxFault) as caught:
        parse(expression)
    return str(caught.value)


# What expressions say


@pytest.mark.parametrize(
    ("expression", "properties", "expected"),
    [
        # Numbers: what is converted, and what is none.
        ("a > 5", {"a": "6"}, True),
        ("a > 5", {"a": "5"}, False),
        ("a > 5", {"a": "5.5"}, True),
        ("a > 5", {}, None),
        ("a > 5", {"a": "six"}, None),
        ("a <> 5", {"a": "six"}, None),
        ("a = 5", {"a": "5.0"}, True),
        ("a = 5", {"a": "+5"}, True),
        ("a = 5", {"a": " 5"}, None),
        ("a = 5", {"a": "5_0"}, None),
        ("a = 5", {"a": "٥"}, None),
        ("a < 5", {"a": "nan"}, None),
        ("a < 5", {"a": "-inf"}, None),
        ("a < 5", {"a": ""}, None),
        ("a < 5", {"a": "-1e400"}, True),
        ("a > 5", {"a": "9" * 5000}, None),
        ("a = 9007199254740993", {"a": "9007199254740992"}, False),
        ("a = -9223372036854775808", {"a": "-9223372036854775808"}, True),
        ("a = 7L OR a = 7l", {"a": "7"}, True),
        ("a = - - +7", {"a": "7"}, True),
        ("a > 3.1E10", {"a": "31415000000.0"}, True),
        ("a = .5 AND a = 5.e-1 AND a = 0.5E0", {"a": "0.5"}, True),
        ("a > 0.0", {"a": "1"}, True),
        ("5 < a", {"a": "6"}, True),
        ("a > b", {"a": "10", "b": "9"}, True),
        ("a > b", {"a": "10", "b": "x"}, None),
        ("1 < 2", {}, True),
        # Text.
        ("a = 'x'", {"a": "x"}, True),
        ("a = 'x'", {"a": "X"}, False),
        ("a = ''", {"a": ""}, True),
        ("a = 'it''s'", {"a": "it's"}, True),
        ("a = '''' ", {"a": "'"}, True),
        ("a = '5'", {"a": "5.0"}, False),
        ("a = b", {"a": "1", "b": "1.0"}, False),
        ("a = b", {}, None),
        ("'5' = 5", {}, True),
        ("a = 'ü✓'", {"a": "ü✓"}, True),
        # Names and words: names keep their case, words have none.
        ("A = 'x'", {"a": "x"}, None),
        ("$a_1 = 'x' and _ = 'y'", {"$a_1": "x", "_": "y"}, True),
        ("android = 'x' Or nottingham = 'y'", {"nottingham": "y"}, True),
        ("a iS nOt NuLl aNd TRUE", {"a": ""}, True),
        ("a>5and b<5", {"a": "6", "b": "4"}, True),
        # Truth values: what is not true is false, as in Java.
        ("a = TRUE", {"a": "True"}, True),
        ("a = FALSE", {"a": "no"}, True),
        ("a = TRUE", {}, None),
        ("a", {"a": "true"}, True),
        ("NOT a", {"a": "false"}, True),
        ("(b > 5) = a", {"a": "true", "b": "6"}, True),
        ("NULL", {}, None),
        ("TRUE OR NULL", {}, True),
        ("FALSE AND NULL", {}, False),
        # NOT, AND, OR.
        ("NOT a = 5", {"a": "6"}, True),
        ("NOT a IS NULL", {"a": "6"}, True),
        ("NOT a = 5 AND b = 5", {"a": "6", "b": "6"}, False),
        ("NOT a > 5", {}, None),
        ("a = 1 OR b = 1 AND c = 1", {"a": "1"}, True),
        ("(a = 1 OR b = 1) AND c = 1", {"a": "1", "c": "2"}, False),
        ("a = 1 AND b = 1", {"a": "2"}, False),
        ("a = 1 AND b = 1", {"a": "1"}, None),
        ("a = 1 OR b = 1", {"a": "1"}, True),
        ("a = 1 OR b = 1", {"a": "2"}, None),
        # BETWEEN and IN.
        ("a BETWEEN 2 AND 10 AND TRUE", {"a": "10"}, True),
        ("a NOT BETWEEN 2 AND 10", {"a": "1.9"}, True),
        ("a NOT BETWEEN 2 AND 10", {"a": "x"}, None),
        ("a BETWEEN b AND 10", {"a": "5"}, None),
        ("a BETWEEN b AND 10", {"a": "11"}, False),
        ("a IN ('x', 'y')", {"a": "y"}, True),
        ("(a) NOT IN ('x')", {"a": "y"}, True),
        ("a NOT IN ('x')", {}, None),
        # IS NULL.
        ("a IS NULL", {}, True),
        ("a IS NULL", {"a": ""}, False),
        ("(a > 5) IS NULL", {"a": "x"}, True),
        ("NULL IS NULL", {}, True),
        ("5 IS NOT NULL", {}, True),
        # Parts: as in RocketMQ, of what is not there both forms are false, and for an empty string too.
        ("a CONTAINS 'b' AND a STARTSWITH 'ab' AND a ENDSWITH 'bc'", {"a": "abc"}, True),
        ("a NOT CONTAINS 'x' AND a NOT STARTSWITH 'b' AND a NOT ENDSWITH 'b'", {"a": "abc"}, True),
        ("a CONTAINS 'B'", {"a": "abc"}, False),
        ("a CONTAINS 'x'", {}, False),
        ("a NOT CONTAINS 'x'", {}, False),
        ("a CONTAINS ''", {"a": "x"}, False),
        ("a NOT CONTAINS ''", {"a": "x"}, False),
        ("'axb' CONTAINS 'x'", {}, True),
        # Comments.
        ("a -- > 5\n > /* 7 */ 6 /***/ -- end", {"a": "7"}, True),
        ("a = '/*' OR a = '--'", {"a": "--"}, True),
        ("a>--5\n5", {"a": "6"}, True),
    ],
)
def test_what_expressions_say(expression: str, properties: dict[str, str], expected: bool | None) -> None:
    assert evaluated(expression, **properties) is expected


@settings(max_examples=500, deadline=None)
@given(expression=expressions(), properties=PROPERTIES)
def test_expressions_by_chance_say_what_they_mean(expression: Expression, properties: dict[str, str]) -> None:
    assert evaluated(expression.text, **properties) is expression.meaning(properties), expression.text


# What is refused


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", "line 1, column 1 (position 0): the expression is empty; expected: a property, "),
        (" \n ", "line 2, column 2 (position 3): the expression is empty; expected: a property, "),
        ("a >", "line 1, column 4 (position 3): the expression ends; expected: a property, a string "),
        ("a\n= 5\nb", "line 3, column 1 (position 6): 'b' cannot stand here; expected: =, <>, "),
        ("(a > 5", "line 1, column 7 (position 6): the expression ends; expected: =, <>, "),
        ("a > 5)", "line 1, column 6 (position 5): ')' cannot stand here; expected: =, <>, "),
        ("a and between 2 and 10", "line 1, column 7 (position 6): 'between' cannot stand here; expected: a property"),
        ("a ! 5", "line 1, column 3 (position 2): '!' cannot stand here; expected: =, "),
        ("a = \x00", "line 1, column 5 (position 4): '\\x00' cannot stand here; expected: a property, "),
        ("a = 'x", "line 1, column 5 (position 4): the string that begins here has no end; expected: a prop"),
        ("a = 'it''s", "line 1, column 5 (position 4): the string that begins here has no end; expected: a prop"),
        ("a = /* 5", "line 1, column 5 (position 4): the comment that begins here has no end; expected: a prop"),
        ('a = "x"', "line 1, column 5 (position 4): '\"' cannot stand here; expected: a property, "),
        ("a IN (5)", "line 1, column 7 (position 6): '5' cannot stand here; expected: a string in single quotes"),
        ("a IN ()", "line 1, column 7 (position 6): ')' cannot stand here; expected: a string in single quotes"),
        ("a IN ('x' 'y')", "line 1, column 11 (position 10): \"'y'\" cannot stand here; expected: ',' or ')'"),
        ("a CONTAINS b", "line 1, column 12 (position 11): 'b' cannot stand here; expected: a string in single quotes"),
        ("a NOT 5", "line 1, column 7 (position 6): '5' cannot stand here; expected: BETWEEN, IN or CONTAINS, "),
        ("a IS 5", "line 1, column 6 (position 5): '5' cannot stand here; expected: NULL or NOT"),
        ("a = -b", "line 1, column 6 (position 5): 'b' cannot stand here; expected: a number"),
        ("a = b + 1", "line 1, column 7 (position 6): '+' cannot stand here; expected: =, "),
        ("a = 007", "line 1, column 6 (position 5): '0' cannot stand here; expected: =, "),
        ("a.b = 1", "line 1, column 2 (position 1): '.' cannot stand here; expected: =, "),
        ("a LIKE 'x'", "line 1, column 3 (position 2): 'LIKE' cannot stand here; expected: =, "),
        ("a = " + "x" * 50 + " " + "y" * 50, "line 1, column 56 (position 55): '" + "y" * 40 + "…' cannot stand here"),
        # What can be read and makes no sense.
        ("a > 'x'", "line 1, column 5 (position 4): > compares numbers and properties, not a string"),
        ("a <= TRUE", "line 1, column 6 (position 5): <= compares numbers and properties, not TRUE"),
        ("a < NULL", "line 1, column 5 (position 4): < compares numbers and properties, not NULL"),
        ("(a > 5) > 4", "line 1, column 2 (position 1): > compares numbers and properties, not a condition"),
        ("a BETWEEN 'x' AND 5", "line 1, column 11 (position 10): BETWEEN compares numbers and properties, not a st"),
        ("a BETWEEN 10 AND 0", "line 1, column 11 (position 10): nothing is BETWEEN 10 AND 0"),
        ("a = NULL", "line 1, column 5 (position 4): nothing equals NULL: write IS NULL or IS NOT NULL"),
        ("NULL <> a", "line 1, column 1 (position 0): nothing equals NULL"),
        ("5 = TRUE", "line 1, column 5 (position 4): a number cannot be compared with TRUE"),
        ("(a > 1) = 5", "line 1, column 11 (position 10): a condition cannot be compared with a number"),
        ("5", "line 1, column 1 (position 0): a number is no condition"),
        ("'x' AND a", "line 1, column 1 (position 0): a string is no condition"),
        ("NOT 5", "line 1, column 5 (position 4): a number is no condition"),
        ("5 IN ('x')", "line 1, column 1 (position 0): IN asks what a property is, not a number"),
        ("5 CONTAINS 'x'", "line 1, column 1 (position 0): CONTAINS asks of a property or a string, not of a number"),
        ("(a > 1) ENDSWITH 'x'", "line 1, column 2 (position 1): ENDSWITH asks of a property or a string, not of a c"),
        ("a = 9223372036854775808", "line 1, column 5 (position 4): a whole number has 64 bits"),
        ("a = -9223372036854775809", "line 1, column 6 (position 5): a whole number has 64 bits"),
        ("a = 1" + "0" * 3000, "line 1, column 5 (position 4): a whole number has 64 bits"),
        ("a = 1e999", "line 1, column 5 (position 4): the number is beyond what a double can hold"),
        ("a = 0.1e-999", "line 1, column 5 (position 4): the number is beyond what a double can hold"),
    ],
)
def test_a_fault_is_told_with_its_place(expression: str, expected: str) -> None:
    assert fault(expression).startswith(expected)


def test_limits() -> None:
    longest = "a = '" + "x" * (MAX_LENGTH - 6) + "'"
    assert evaluated(longest, a="x") is False
    assert f"at most {MAX_LENGTH}" in fault(longest + " ")
    most = " OR ".join(["a = 1"] * (MAX_TOKENS // 4))
    assert evaluated(most, a="1") is True
    assert f"at most {MAX_TOKENS}" in fault(most + " OR a = 1")
    assert evaluated("NOT " * 60 + "a", a="true") is True
    assert "nested" in fault("NOT " * 65 + "a")
    assert evaluated("(" * 190 + "a = 1" + ")" * 190, a="1") is True, "parentheses alone nest nothing"
    assert "nested" in fault("(NOT " * 65 + "a = 1" + ")" * 65)
    assert "nested" in fault("a = " * 70 + "(b > 5)")


# Texts by chance

NAMES = ("a", "TAGS", "5", "5.5", "1e5", "7L", "'x'", "''", "'it''s'", "é")
SIGNS = ("(", ")", ",", "=", "<>", "<", "<=", ">", ">=", "+", "-", "/*", "*/", "--", "'", "!", ".", "\x00")
KEYWORDS = ("NOT", "AND", "OR", "IS", "NULL", "IN", "BETWEEN", "TRUE", "FALSE", "CONTAINS", "STARTSWITH", "ENDSWITH")
WORDS = st.sampled_from(NAMES + SIGNS + KEYWORDS)


def compiled(expression: str) -> bool:
    """Whether it is one. Whatever else happens than a refusal with a place is an error."""
    began_s = process_time()
    try:
        condition = parse(expression)
    except SyntaxFault as problem:
        place = re.match(r"line (\d+), column (\d+) \(position (\d+)\): ", str(problem))
        if len(expression) <= MAX_LENGTH:
            assert place
            line, column, position = map(int, place.groups())
            assert 0 <= position <= len(expression)
            assert len("".join(re.split("(\n)", expression)[: 2 * (line - 1)])) + column - 1 == position
        return False
    finally:
        assert process_time() - began_s < 2
    for properties in ({}, {"a": "5", "TAGS": "x"}, {"a": "'", "e": "1e5"}):
        assert condition.test(Properties(properties, NO_SYSTEM)) in (True, False, None)
    return True


@settings(max_examples=500, deadline=None)
@given(expression=st.lists(WORDS, max_size=40).map(" ".join) | st.lists(WORDS, max_size=30).map("".join))
def test_words_by_chance_are_read_or_refused(expression: str) -> None:
    compiled(expression)


@settings(max_examples=300, deadline=None)
@given(expression=st.text(max_size=200))
def test_text_by_chance_is_read_or_refused(expression: str) -> None:
    compiled(expression)


@settings(max_examples=200, deadline=None)
@given(expression=expressions(), at=st.floats(0, 1), piece=st.text(max_size=3) | WORDS, cut=st.integers(0, 3))
def test_damaged_expressions_are_read_or_refused(expression: Expression, at: float, piece: str, cut: int) -> None:
    place = int(at * len(expression.text))
    compiled(expression.text[:place] + piece + expression.text[place + cut :])


@pytest.mark.parametrize(
    "piece",
    [
        *("'", "''", "'a'", "(", ")", "()", "/*", "/* *", "*", "*/", "-", "--", "--\n", "<", "<>", "=", ",", " ", "\n"),
        *("0", "9", ".", "9.", "e", "1e", "-9 ", "a", "$", "\x00", "é"),
        *("NOT ", "not(", "a=", "a = a AND ", "a in ('", "a is not "),
    ],
)
def test_long_texts_are_read_or_refused_soon(piece: str) -> None:
    for count in (100, MAX_LENGTH // len(piece), MAX_LENGTH):
        for begin, end in (("", ""), ("a = ", ""), ("a = '", "'"), ("a in ('x", "')"), ("a = 1 /*", "*/")):
            compiled((begin + piece * count)[: MAX_LENGTH - len(end)] + end)
    compiled("a = 1 OR " * 100_000)


# Filters


def stored(properties: dict[str, str] | None = None, **system: object) -> StoredMessage:
    sent = definition_pb2.SystemProperties(message_id="m", **system)  # type: ignore[arg-type]
    head = definition_pb2.Message(user_properties=properties, body=b"body").SerializeToString()
    hash_ = tag_hash(sent.tag) if sent.tag else 0
    return StoredMessage(0, head, sent.SerializeToString(), hash_, 0, 0, 0)


def passes(expression: str, message: StoredMessage) -> bool:
    filter_ = compile_sql(expression)
    assert not filter_.all
    return filter_.may_match(message.tag_hash) and filter_.matches(message)


def test_a_filter_reads_the_properties_of_a_stored_message() -> None:
    message = stored({"n": "7", "ü": "x"}, tag="red", keys=["k1", "k2"], born_host="host", message_group="g")
    for expression in (
        "n = 7",
        "TAGS = 'red'",
        "KEYS = 'k1 k2'",
        "KEYS CONTAINS 'k2' AND n > 6",
        "UNIQ_KEY = 'm'",
        "__BORNHOST = 'host'",
        "__SHARDINGKEY = 'g'",
        "tags IS NULL AND BORN_TIMESTAMP IS NULL AND TIMER_DELIVER_MS IS NULL",
        "DLQ_ORIGIN_TOPIC IS NULL AND TRACE_CONTEXT IS NULL",
        "TRUE",
    ):
        assert passes(expression, message), expression
    for expression in ("n = 8", "n = 'x' OR x = 1", "TAGS = 'blue'", "NULL", "n > 5 AND NOT TAGS IN ('red')"):
        assert not passes(expression, message), expression


def test_what_is_not_there_is_null() -> None:
    for name in ("TAGS", "KEYS", "__BORNHOST", "__SHARDINGKEY", "n", "DLQ_ORIGIN_MESSAGE_ID"):
        assert passes(f"{name} IS NULL", stored())


@pytest.mark.parametrize("seconds", [1_700_000_000, -1, 2**63 - 1, -(2**63)])
def test_any_time_can_be_compared(seconds: int) -> None:
    message = stored()
    sent = definition_pb2.SystemProperties.FromString(message.tail)
    sent.born_timestamp.seconds, sent.born_timestamp.nanos = seconds, 999_999_999
    message = message._replace(tail=sent.SerializeToString())
    assert passes("BORN_TIMESTAMP > 5", message) == (seconds > 0)


@pytest.mark.parametrize(
    ("expression", "tags"),
    [
        ("TAGS = 'a'", {"a"}),
        ("'a' = TAGS AND n > 5", {"a"}),
        ("TAGS IN ('a', 'b') AND (n > 5 OR n IS NULL)", {"a", "b"}),
        ("TAGS IN ('a', 'b') AND TAGS IN ('b', 'c')", {"b"}),
        ("TAGS = 'a' OR TAGS = 'b' AND n = 5", {"a", "b"}),
        ("TAGS = 'a' AND TAGS = 'b'", set[str]()),
        ("TAGS = 'a' OR n > 5", None),
        ("NOT TAGS = 'a'", None),
        ("TAGS <> 'a'", None),
        ("TAGS NOT IN ('a')", None),
        ("TAGS = 5", None),
        ("TAGS = n", None),
        ("TAGS CONTAINS 'a'", None),
        ("(TAGS = 'a') = n", None),
        ("(TAGS = 'a') IS NULL", None),
    ],
)
def test_tags_spare_messages_from_being_parsed_where_the_expression_allows(
    expression: str, tags: set[str] | None
) -> None:
    filter_ = compile_sql(expression)
    for tag in ("a", "b", "c"):
        assert filter_.may_match(tag_hash(tag)) == (tags is None or tag in tags)
    assert filter_.may_match(0) == (tags is None)


TAGGED = st.sampled_from(
    ("TAGS = 'x'", "'y' = TAGS", "TAGS IN ('x', 'y')", "TAGS NOT IN ('y')", "TAGS <> 'x'", "n > 5")
)
JOINTS = st.sampled_from(("({} AND {})", "({} OR {})", "(NOT {})", "({} = TRUE)"))
JOINED = st.recursive(
    TAGGED,
    lambda inner: st.builds(lambda joint, one, other: joint.format(one, other), JOINTS, inner, inner),
    max_leaves=6,
)


@settings(deadline=None)
@given(expression=JOINED, tag=st.sampled_from(("x", "y", "z", None)), number=st.sampled_from(("5", "6")))
def test_no_message_that_matches_is_passed_over_by_its_tag(expression: str, tag: str | None, number: str) -> None:
    message = stored({"n": number}, tag=tag)
    filter_ = compile_sql(expression)
    assert filter_.may_match(message.tag_hash) or not filter_.matches(message)


def test_what_is_refused_has_the_api_s_code_each_time() -> None:
    for _ in range(2):
        with pytest.raises(Refused, match=r"line 1, column 4 \(position 3\)") as caught:
            compile_sql("a >")
        assert caught.value.code == definition_pb2.ILLEGAL_FILTER_EXPRESSION
    assert compile_sql("a > 5") is compile_sql("a > 5"), "compiled once"
