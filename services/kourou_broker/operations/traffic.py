"""What went through the broker since its start, in plain numbers: they are counted for each section, not each message.

They are no part of the state: a restart begins them anew.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from kourou_service.metrics.histogram import Histogram

SIZE_BOUNDS_BYTES = (1 << 10, 4 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20)
"""RocketMQ's buckets."""
_HOUR_S = 3600
DELAY_BOUNDS_S = (60, 600, _HOUR_S, 12 * _HOUR_S, 24 * _HOUR_S, 72 * _HOUR_S)
TRANSACTION_BOUNDS_S = (5, 60, 600, _HOUR_S, 12 * _HOUR_S, 24 * _HOUR_S)


class TopicTraffic:
    """What came into a topic."""

    __slots__ = ("messages", "size_bytes", "sizes")

    def __init__(self) -> None:
        self.messages = 0
        self.size_bytes = 0
        """Of whole messages, as they are stored."""
        self.sizes = Histogram(SIZE_BOUNDS_BYTES)

    def add(self, sizes: Sequence[int], size_bytes: int) -> None:
        """sizes: of each message; size_bytes: of all of them, as they are stored."""
        self.messages += len(sizes)
        self.size_bytes += size_bytes
        self.sizes.sum += size_bytes
        counts = self.sizes.counts
        if len(sizes) == 1:
            counts[bisect_left(SIZE_BOUNDS_BYTES, size_bytes)] += 1
            return
        smallest, largest = bisect_left(SIZE_BOUNDS_BYTES, min(sizes)), bisect_left(SIZE_BOUNDS_BYTES, max(sizes))
        if smallest == largest:  # as nearly always
            counts[smallest] += len(sizes)
            return
        for size in sizes:
            counts[bisect_left(SIZE_BOUNDS_BYTES, size)] += 1


class GroupTraffic:
    """What a group got from a topic, and what became of it."""

    __slots__ = ("acknowledged", "dead_letters", "delivered", "redelivered", "size_bytes")

    def __init__(self) -> None:
        self.delivered = 0
        self.redelivered = 0
        """How many of these at a later attempt than the first."""
        self.size_bytes = 0
        """Of what was delivered, as it is stored."""
        self.acknowledged = 0
        self.dead_letters = 0


class DelayTraffic:
    """What was held in a topic until its time."""

    __slots__ = ("fired", "held")

    def __init__(self) -> None:
        self.held = Histogram(DELAY_BOUNDS_S)
        """How long, as the senders asked."""
        self.fired = 0


class TransactionTraffic:
    """The transactions of a topic that have ended."""

    __slots__ = ("committed", "given_up", "rolled_back")

    def __init__(self) -> None:
        self.committed = Histogram(TRANSACTION_BOUNDS_S)
        """How long they were open."""
        self.rolled_back = 0
        self.given_up = 0
        """By the broker, since nobody ended them."""


class Traffic:
    def __init__(self) -> None:
        self.stored = 0
        self.delivered = 0
        self.refused_sends: Counter[int] = Counter()
        """Calls by the code that they were refused with."""
        self.duplicate_sends = 0
        """Messages that were sent before, and so were not stored again."""
        self.topics: dict[int, TopicTraffic] = {}
        """By topic id, as the next two."""
        self.delays: dict[int, DelayTraffic] = {}
        self.transactions: dict[int, TransactionTraffic] = {}
        self.groups: dict[tuple[int, int], GroupTraffic] = {}
        """By group id and topic id."""

    def of_topic(self, topic: int) -> TopicTraffic:
        return self.topics.get(topic) or self.topics.setdefault(topic, TopicTraffic())

    def of_delays(self, topic: int) -> DelayTraffic:
        return self.delays.get(topic) or self.delays.setdefault(topic, DelayTraffic())

    def of_transactions(self, topic: int) -> TransactionTraffic:
        return self.transactions.get(topic) or self.transactions.setdefault(topic, TransactionTraffic())

    def of_group(self, group: int, topic: int) -> GroupTraffic:
        key = (group, topic)
        return self.groups.get(key) or self.groups.setdefault(key, GroupTraffic())

    def forget_topic(self, topic: int) -> None:
        """The topic was deleted."""
        for by_topic in (self.topics, self.delays, self.transactions):
            by_topic.pop(topic, None)
        for key in [key for key in self.groups if key[1] == topic]:
            del self.groups[key]

    def forget_group(self, group: int) -> None:
        """The group was deleted."""
        for key in [key for key in self.groups if key[0] == group]:
            del self.groups[key]
