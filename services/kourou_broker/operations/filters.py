"""What a consumer wants of a topic: filters by tag or SQL92, compiled from what clients say."""

from typing import Protocol

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations.section_reader import StoredMessage
from kourou_broker.operations.sql_filter import compile_sql
from kourou_broker.operations.tag_filter import compile_tags
from kourou_service.refusal import Refused


class Filter(Protocol):
    @property
    def all(self) -> bool:
        """Whether every message passes."""
        ...

    @property
    def cost(self) -> int:
        """What one call of `matches` takes, in units of half a microsecond, for a message of ordinary size."""
        ...

    def may_match(self, hash_: int) -> bool:
        """Whether messages whose tag has this hash may pass."""
        ...

    def matches(self, message: StoredMessage) -> bool:
        """Whether a message passes of which `may_match` says that it may."""
        ...


def compile_filter(expression: definition_pb2.FilterExpression) -> Filter:
    """Raises Refused, which names the place of the fault, for what is no expression of its type."""
    if expression.type == definition_pb2.SQL:
        return compile_sql(expression.expression)
    if expression.type in (definition_pb2.TAG, definition_pb2.FILTER_TYPE_UNSPECIFIED):
        return compile_tags(expression.expression)
    raise Refused(definition_pb2.ILLEGAL_FILTER_EXPRESSION, f"unknown filter type {expression.type}")
