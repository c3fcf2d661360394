"""Many messages that are sent at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import cast

from kourou.errors import KourouError, PartialFailure
from kourou.frame import Bulk, Kind, kind_of
from kourou.lanes import Lanes
from kourou.message import Message, MessageType
from kourou.results import Joined, Outcome, SendResult, are_stored

_SORT = attrgetter("topic", "type")
_OF_ONE_KIND = (MessageType.NORMAL, MessageType.DELAY)
"""Messages of these types are of one kind if they have one topic."""


async def send_all(lanes: Lanes, messages: Sequence[Message], timeout_s: float) -> Sequence[SendResult]:
    """The results in the order of the messages. Raises PartialFailure when only some were stored, and the first error
    itself when none was."""
    sorts = cast("set[tuple[str, MessageType]]", set(map(_SORT, messages)))
    if len(sorts) > 1 or (sorts and next(iter(sorts))[1] not in _OF_ONE_KIND):
        return await _send_kinds(lanes, messages, timeout_s)
    if not messages:
        return []
    parts = await _put(lanes, kind_of(messages[0]), messages, timeout_s)
    if all(map(are_stored, parts)):
        return Joined(cast("Sequence[Sequence[SendResult]]", parts))
    return _results(list(chain.from_iterable(parts)))


async def _send_kinds(lanes: Lanes, messages: Sequence[Message], timeout_s: float) -> list[SendResult]:
    together: defaultdict[Kind, list[int]] = defaultdict(list)
    for index, message in enumerate(messages):
        together[kind_of(message)].append(index)
    puts = [_put(lanes, kind, [messages[index] for index in indexes], timeout_s) for kind, indexes in together.items()]
    outcomes: dict[int, Outcome] = {}
    for indexes, parts in zip(together.values(), await asyncio.gather(*puts), strict=True):
        outcomes.update(zip(indexes, chain.from_iterable(parts), strict=True))
    return _results([outcomes[index] for index in range(len(messages))])


def _put(
    lanes: Lanes, kind: Kind, messages: Sequence[Message], timeout_s: float
) -> asyncio.Future[list[Sequence[Outcome]]]:
    future: asyncio.Future[list[Sequence[Outcome]]] = asyncio.get_running_loop().create_future()
    lanes.for_kind(kind).put(Bulk(messages, future, timeout_s))
    return future


def _results(outcomes: list[Outcome]) -> list[SendResult]:
    results = [outcome for outcome in outcomes if isinstance(outcome, SendResult)]
    if len(results) == len(outcomes):
        return results
    if results:
        raise PartialFailure("sending", outcomes)
    raise next(outcome for outcome in outcomes if isinstance(outcome, KourouError))
