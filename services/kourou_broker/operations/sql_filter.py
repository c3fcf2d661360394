"""Filters by SQL92, over the properties that stored messages have."""

from functools import lru_cache

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations.message import tag_hash
from kourou_broker.operations.section_reader import StoredMessage
from kourou_broker.operations.sql.operands import Condition
from kourou_broker.operations.sql.parser import SyntaxFault, parse
from kourou_broker.operations.sql.properties import properties_reader
from kourou_service.refusal import Refused

_KEPT = 512
"""Of the expressions asked for last, whether they are good or not: every poll of a consumer brings its own."""
_PARSING_COST = 6
_COMPARISON_COST = 3


class SqlFilter:
    """Where a condition is true of certain tags only, their hashes settle the other messages without parsing them."""

    __slots__ = ("_hashes", "_properties", "_test", "all", "cost")

    def __init__(self, condition: Condition) -> None:
        self.all = False
        self.cost = _PARSING_COST + _COMPARISON_COST * condition.size
        self._test = condition.test
        self._properties = properties_reader(condition.names)
        self._hashes = None if condition.tags is None else frozenset(map(tag_hash, condition.tags))

    def may_match(self, hash_: int) -> bool:
        return self._hashes is None or hash_ in self._hashes

    def matches(self, message: StoredMessage) -> bool:
        return self._test(self._properties(message)) is True


def compile_sql(text: str) -> SqlFilter:
    """Raises Refused, with the place of the fault, for what is no condition."""
    compiled = _compiled(text)
    if isinstance(compiled, SqlFilter):
        return compiled
    raise Refused(definition_pb2.ILLEGAL_FILTER_EXPRESSION, f"the SQL filter is not valid: {compiled}")


@lru_cache(maxsize=_KEPT)
def _compiled(text: str) -> SqlFilter | str:
    """Or what is wrong with the text."""
    try:
        return SqlFilter(parse(text))
    except SyntaxFault as fault:
        return str(fault)
