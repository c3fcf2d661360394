"""Which pending messages of a queue wait for an older one of their message group. Soft state, made anew from the fold.

Of each message group only the oldest pending message may be lent. It is the oldest until it is settled and the disk
knows: an ack lost in a crash must not have let a newer message out.
"""

from collections import deque
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

    def enter(self, offset: int, group: str, *, held_back: bool) -> None:
        """A message is pending, newer than all others of its message group."""
        pending = self._pending.setdefault(group, deque())
        pending.append(offset)
        self._group_of[offset] = group
        if held_back:
            self._held_back.add(offset)
            self._look_at_oldest(pending)

    def blocks(self, group: str) -> bool:
        """Whether a fresh message of the message group has to wait."""
        return group in self._pending

    def may_be_lent(self, offset: int) -> bool:
        """Whether a pending message is the oldest of its message group."""
        group = self._group_of.get(offset)
        return group is not None and self._pending[group][0] == offset

    def oldest(self, offset: int) -> int | None:
        """The oldest pending message of the same message group; None of what is not known here."""
        group = self._group_of.get(offset)
        return None if group is None else self._pending[group][0]

    def lent(self, offsets: Iterable[int]) -> None:
        """Messages whose turn it was."""
        for offset in offsets:
            self.turn.pop(offset, None)
            self._held_back.discard(offset)

    def settled(self, offsets: Sequence[int]) -> None:
        """The disk knows that these are not pending any more."""
        self.lent(offsets)
        for offset in offsets:
            self.unread.pop(offset, None)
            group = self._group_of.pop(offset, None)
            if group is None:
                continue
            pending = self._pending[group]
            if pending[0] == offset:
                pending.popleft()
            else:
                pending.remove(offset)  # lent before the group kept order
            if pending:
                self._look_at_oldest(pending)
            else:
                del self._pending[group]

    def _look_at_oldest(self, pending: deque[int]) -> None:
        if pending[0] in self._held_back:
            self.turn[pending[0]] = None
