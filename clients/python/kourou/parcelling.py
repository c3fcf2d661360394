"""Cutting many messages into requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from kourou.message import Message, MessageType
from kourou.outbox import MAX_PARCEL_BYTES, MAX_PARCEL_COUNT

_NORMAL = MessageType.NORMAL


def strands(messages: Sequence[Message]) -> Iterator[list[list[int]]]:
    """The messages by index, cut into requests, each of one topic, type, message group, priority and lite topic. The
    requests of a strand go one after the other, those of different strands at the same time."""
    together: defaultdict[object, list[int]] = defaultdict(list)
    for index, message in enumerate(messages):
        type_ = message.type
        # Of ordinary messages the topic is enough: they are many.
        sort = message.topic if type_ is _NORMAL else (message.topic, type_, *_apart(message))
        together[sort].append(index)
    for indexes in together.values():
        shares = _shares(messages, indexes)
        first = messages[indexes[0]]
        if first.message_group is not None or first.lite_topic is not None:
            yield list(shares)
        else:
            yield from ([share] for share in shares)


def _apart(message: Message) -> tuple[str | int | None, ...]:
    return message.message_group, message.priority, message.lite_topic


def _shares(messages: Sequence[Message], indexes: Iterable[int]) -> Iterator[list[int]]:
    """Within the limits of a request."""
    share: list[int] = []
    size_bytes = 0
    for index in indexes:
        size_bytes += len(messages[index].body)
        if share and (len(share) == MAX_PARCEL_COUNT or size_bytes > MAX_PARCEL_BYTES):
            yield share
            share = []
            size_bytes = len(messages[index].body)
        share.append(index)
    yield share
