"""Tag expressions: `*`, or tags with `||` between them."""

from functools import lru_cache

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations.message import tag_hash
from kourou_broker.operations.section_reader import StoredMessage
from kourou_service.refusal import Refused

MAX_EXPRESSION_LENGTH = 4096


class TagFilter:
    """Compiled once for an expression; the hash in a section's table settles most messages without parsing them."""

    __slots__ = ("_hashes", "_tags", "all")

    cost = 2

    def __init__(self, tags: frozenset[str] | None) -> None:
        self.all = tags is None
        self._tags = tags or frozenset()
        self._hashes = frozenset(map(tag_hash, self._tags))

    def may_match(self, hash_: int) -> bool:
        return self.all or hash_ in self._hashes

    def matches(self, message: StoredMessage) -> bool:
        if self.all:
            return True
        return definition_pb2.SystemProperties.FromString(message.tail).tag in self._tags


@lru_cache(maxsize=1024)
def compile_tags(text: str) -> TagFilter:
    """Raises Refused for what is no tag expression."""
    if len(text) > MAX_EXPRESSION_LENGTH:
        raise Refused(
            definition_pb2.ILLEGAL_FILTER_EXPRESSION, f"the expression is over {MAX_EXPRESSION_LENGTH} characters long"
        )
    text = text.strip()
    if text in ("", "*"):
        return TagFilter(None)
    tags = [tag.strip() for tag in text.split("||")]
    for tag in tags:
        if not tag or "|" in tag or tag == "*":
            raise Refused(
                definition_pb2.ILLEGAL_FILTER_EXPRESSION,
                f"{text!r} is no tag expression: write '*', or tags with '||' between them",
            )
    return TagFilter(frozenset(tags))
