"""Which pending messages of a queue wait for an older one of their message group. Soft state, made anew from the fold.

Of each message group only the oldest pending message may be lent, or the one that is lent: a dead letter that was given
back to its group may be older, and waits. It is the oldest until it is settled and the disk
knows: an ack lost in a crash must not have let a newer message out.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations.section_reader import StoredMessage


def message_group(message: StoredMessage) -> str:
    return definition_pb2.SystemProperties.FromString(message.tail).message_group


class MessageOrder:
    """Of one queue for one group. It begins with offsets of which nothing is known, and is good when they are read."""

    def __init__(self, pending: Iterable[int]) -> None:
        self.durable = False
        """Whether the disk knows all that was settled before this began."""
        self.unread = dict.fromkeys(sorted(pending))
        """Pending messages whose message group is not known yet, the oldest first."""
        self.turn: dict[int, None] = {}
        """Messages that were held back and are the oldest now: they can be lent for the first time."""
        self._pending: dict[str, deque[int]] = {}
        """By message group, the oldest first."""
        self._group_of: dict[int, str] = {}
        self._held_back: set[int] = set()
        self._lent: Counter[str] = Counter()
        """By message group, how many pending messages are not held back."""

    def enter(self, offset: int, group: str, *, held_back: bool) -> None:
        """A message is pending, newer than all others of its message group that are known here."""
        pending = self._pending.setdefault(group, deque())
        pending.append(offset)
        self._group_of[offset] = group
        if held_back:
            self._held_back.add(offset)
            self._look_at_oldest(group, pending)
        else:
            self._lent[group] += 1
            self.turn.pop(pending[0], None)

    def blocks(self, group: str) -> bool:
        """Whether a fresh message of the message group has to wait."""
        return group in self._pending

    def may_be_lent(self, offset: int) -> bool:
        """Whether a pending message is the one of its message group that may be."""
        return self.oldest(offset) == offset

    def oldest(self, offset: int) -> int | None:
        """The oldest pending message of the same message group, or the one that is lent; None if it is not known."""
        group = self._group_of.get(offset)
        if group is None:
            return None
        pending = self._pending[group]
        if not self._lent[group] or pending[0] not in self._held_back:
            return pending[0]
        return next(offset for offset in pending if offset not in self._held_back)

    def lent(self, offsets: Iterable[int]) -> None:
        """Messages whose turn it was."""
        for offset in offsets:
            self.turn.pop(offset, None)
            if offset in self._held_back:
                self._held_back.remove(offset)
                self._lent[self._group_of[offset]] += 1

    def settled(self, offsets: Sequence[int]) -> None:
        """The disk knows that these are not pending any more."""
        self.lent(offsets)
        for offset in offsets:
            self.unread.pop(offset, None)
            group = self._group_of.pop(offset, None)
            if group is None:
                continue
            self._lent[group] -= 1
            pending = self._pending[group]
            if pending[0] == offset:
                pending.popleft()
            else:
                pending.remove(offset)  # lent before the group kept order
            if pending:
                self._look_at_oldest(group, pending)
            else:
                del self._pending[group], self._lent[group]

    def _look_at_oldest(self, group: str, pending: deque[int]) -> None:
        if pending[0] in self._held_back and not self._lent[group]:
            self.turn[pending[0]] = None
