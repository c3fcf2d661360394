"""Messages of the last minutes by their ids: who sends one again joins the send under way, or gets what came of it.

There may be a hundred thousand ids, and the collector of garbage must not walk over as many objects: that would hold
up the loop. So an id leads to a plain number, and what came of a call is a plain tuple, which the collector leaves out
as long as it holds no more than numbers and text. The ids are in two generations: when the younger one is full or old
enough, the older one goes as a whole, which costs no timer for each.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

from kourou_broker.operations.gathered_places import place_of
from kourou_broker.operations.journal import OnStored, Stored
from kourou_service.refusal import Refused


def batch_key(first_message_id: str, count: int) -> str:
    """A batch is known as a whole, and so is only what has the same messages."""
    return f"{first_message_id}*{count}"


class _Generation:
    __slots__ = ("began_ms", "count", "firsts", "numbers", "outcomes", "sent_ms")

    def __init__(self, began_ms: int) -> None:
        self.began_ms = began_ms
        self.numbers: dict[int, dict[str, int]] = {}
        """By topic id and message id, which of this generation's messages it is."""
        self.count = 0
        # Of each call:
        self.firsts = array("Q")
        """The number of its first message."""
        self.sent_ms = array("Q")
        self.outcomes: list[SendUnderWay | tuple[Any, ...]] = []
        """The fields of Stored once it is on the disk."""

    def enter(
        self, topic: int, message_ids: Sequence[str], sent_ms: int, outcome: "SendUnderWay | tuple[Any, ...]"
    ) -> None:
        first = self.count
        numbers = self.numbers.get(topic)
        if numbers is None:
            numbers = self.numbers[topic] = {}
        if len(message_ids) == 1:
            numbers[message_ids[0]] = first
            self.count = first + 1
        else:
            self.count = first + len(message_ids)
            numbers.update(zip(message_ids, range(first, self.count), strict=True))
        self.firsts.append(first)
        self.sent_ms.append(sent_ms)
        self.outcomes.append(outcome)


class SendUnderWay:
    """The messages of a call that are not on the disk yet."""

    __slots__ = ("_call", "_generation", "_joined", "_message_ids", "_on_stored", "_topic")

    def __init__(
        self, generation: _Generation, call: int, topic: int, message_ids: Sequence[str], on_stored: OnStored
    ) -> None:
        self._generation = generation
        self._call = call
        self._topic = topic
        self._message_ids = message_ids
        self._on_stored = on_stored
        self._joined: list[OnStored] | None = None

    def join(self, on_stored: OnStored) -> None:
        """Somebody else waits for it, too."""
        if self._joined is None:
            self._joined = []
        self._joined.append(on_stored)

    def stored(self, where: Stored | Refused) -> None:
        if isinstance(where, Refused):
            self.forget()
        else:
            self._generation.outcomes[self._call] = tuple(where)
        self._on_stored(where)
        if self._joined is not None:
            for on_stored in self._joined:
                on_stored(where)

    def forget(self) -> None:
        """Nothing was stored: the next one with such an id is a new message."""
        self._generation.outcomes[self._call] = ()
        numbers = self._generation.numbers[self._topic]
        first = self._generation.firsts[self._call]
        for number, message_id in enumerate(self._message_ids, first):
            if numbers.get(message_id) == number:
                del numbers[message_id]


class Known(NamedTuple):
    """A message that was sent before: which one of its call, and what came of that."""

    which: int
    outcome: SendUnderWay | Stored

    def tell(self, on_stored: OnStored) -> None:
        """Now, or when it is known."""
        if isinstance(self.outcome, SendUnderWay):
            self.outcome.join(on_stored)
        else:
            on_stored(self.outcome)


class RecentSends:
    def __init__(self, *, window_ms: int, max_ids: int) -> None:
        """Both are at least 1."""
        self._window_ms = window_ms
        self._max_in_generation = (max_ids + 1) // 2
        self._old = _Generation(0)
        self._young = _Generation(0)
        self._unknown_before_ms = 0
        """Of what was sent before, ids were forgotten."""

    def window_ms(self, now_ms: int) -> int:
        """How old a message may be now to be known for sure: less than set when there are too many ids."""
        return max(0, min(self._window_ms, now_ms - self._unknown_before_ms))

    def knows_any(self, topic: int, message_ids: Sequence[str]) -> bool:
        """Whether one of the messages may have been sent before, or is there twice."""
        young, old = self._young.numbers.get(topic), self._old.numbers.get(topic)
        if len(message_ids) == 1:
            message_id = message_ids[0]
            return (young is not None and message_id in young) or (old is not None and message_id in old)
        different = set(message_ids)
        return (
            len(different) != len(message_ids)
            or (young is not None and not young.keys().isdisjoint(different))
            or (old is not None and not old.keys().isdisjoint(different))
        )

    def find(self, topic: int, message_id: str, now_ms: int) -> Known | None:
        for generation in (self._young, self._old):
            number = generation.numbers.get(topic, {}).get(message_id)
            if number is None:
                continue
            call = bisect_right(generation.firsts, number) - 1
            which = number - generation.firsts[call]
            outcome = generation.outcomes[call]
            if isinstance(outcome, SendUnderWay):
                return Known(which, outcome)
            if now_ms - generation.sent_ms[call] < self._window_ms:
                return Known(which, Stored(*outcome))
        return None

    def begin(self, topic: int, message_ids: Sequence[str], now_ms: int, on_stored: OnStored) -> SendUnderWay:
        """Messages that are not known are about to be stored; their ids differ. Whoever stores them tells `stored`."""
        generation = self._generation(now_ms)
        sent = SendUnderWay(generation, len(generation.outcomes), topic, message_ids, on_stored)
        generation.enter(topic, message_ids, now_ms, sent)
        return sent

    def restore(self, topic: int, message_ids: Sequence[str], sent_ms: int, where: Stored) -> None:
        """Messages that lie together in the log, which was read at the start; those that were sent first come first."""
        if self.knows_any(topic, message_ids) and len(message_ids) > 1:
            for which, message_id in enumerate(message_ids):
                self.restore(topic, [message_id], sent_ms, place_of(where, which))
        elif not self.knows_any(topic, message_ids):
            self._generation(sent_ms).enter(topic, message_ids, sent_ms, tuple(where))

    def forget_before(self, time_ms: int) -> None:
        """What was sent before is not known, or not all of it."""
        self._unknown_before_ms = max(self._unknown_before_ms, time_ms)

    def _generation(self, now_ms: int) -> _Generation:
        young = self._young
        if young.count >= self._max_in_generation or now_ms - young.began_ms >= self._window_ms:
            if self._old.count:
                self.forget_before(young.began_ms)
            self._old = young
            young = self._young = _Generation(now_ms)
        return young
