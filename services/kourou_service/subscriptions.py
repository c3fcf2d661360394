"""What consumers want of a topic, in a form that can be compared."""

from typing import NamedTuple

from kourou.protocol.apache.rocketmq.v2 import definition_pb2


class Wanted(NamedTuple):
    """A filter. Two that let the same messages pass for certain are equal: tags have no order."""

    type: int
    expression: str


def wanted_by(expression: definition_pb2.FilterExpression) -> Wanted:
    if expression.type == definition_pb2.SQL:
        return Wanted(definition_pb2.SQL, expression.expression.strip())
    tags = sorted({tag for tag in map(str.strip, expression.expression.split("||")) if tag})
    return Wanted(definition_pb2.TAG, " || ".join(tags) or "*")
