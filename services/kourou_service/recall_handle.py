"""The recall handle: what a sender gets for a delayed message, and takes it back with.

To clients it is a word. As in RocketMQ, it is in URL-safe base64 "v1 topic broker due-time message-id"; what follows
here is the place of the message in the broker's log. A NameServer reads in it who has the message.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_service.refusal import Refused

MAX_CHARS = 8192
_VERSION = "v1"


class RecallHandle(NamedTuple):
    topic: str
    broker: str
    due_ms: int
    message_id: str
    """The only part that may hold spaces."""
    position: int
    index: int  # pyright: ignore[reportIncompatibleMethodOverride] (the tuple's own index is of no use)

    def __str__(self) -> str:
        return urlsafe_b64encode(" ".join((_VERSION, *map(str, self))).encode()).decode()

    @classmethod
    def parse(cls, text: str) -> "RecallHandle":
        """Raises Refused."""
        try:
            if len(text) > MAX_CHARS:
                raise ValueError(text)
            version, topic, broker, due_ms, rest = urlsafe_b64decode(text.encode("ascii")).decode().split(" ", 4)
            message_id, position, index = rest.rsplit(" ", 2)
            if version != _VERSION:
                raise ValueError(version)
            return cls(topic, broker, _number(due_ms, 44), message_id, _number(position, 56), _number(index, 24))
        except ValueError:
            raise Refused(
                definition_pb2.BAD_REQUEST,
                f"{text[:80]!r} is no recall handle of this cluster: pass on what the answer to the send of a delayed"
                " message has in recall_handle, unchanged",
            ) from None


def _number(text: str, bits: int) -> int:
    """Raises ValueError."""
    number = int(text) if text.isascii() and text.isdecimal() else -1
    if not 0 <= number < 1 << bits:
        raise ValueError(text)
    return number
