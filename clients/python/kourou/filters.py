"""What a consumer wants of a topic: messages with certain tags, or those that an SQL condition is true of."""

from __future__ import annotations

from dataclasses import dataclass

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2


@dataclass(frozen=True, slots=True)
class Sql:
    """An SQL92 condition over the properties of messages, as in `Sql("price > 100 AND region = 'eu'")`."""

    expression: str


Filter = str | Sql
"""A string names tags, as in "paid || shipped", or is "*" for all messages."""


def filter_fault(topic: str, wanted: Filter) -> str | None:
    """What is wrong with the topic's filter, as far as a client can tell; brokers know the rest."""
    if isinstance(wanted, Sql):
        return None if wanted.expression.strip() else f"the SQL expression of {topic} is blank"
    return None if wanted.strip() else f"the tags of {topic} are blank; * means all"


def wire_form(wanted: Filter) -> v2.FilterExpression:
    if isinstance(wanted, Sql):
        return v2.FilterExpression(type=v2.SQL, expression=wanted.expression)
    return v2.FilterExpression(type=v2.TAG, expression=wanted)
