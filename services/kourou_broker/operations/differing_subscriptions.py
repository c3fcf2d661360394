"""Groups of which live members subscribe differently: what one of them would take, another one filters out for all.

Counted when a member comes, goes or changes, so that nobody has to look at all members.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

import structlog

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.state.definitions import Name
from kourou_service.subscriptions import Wanted, wanted_by

_logger = structlog.stdlib.get_logger(__name__)


class _Wants:
    """What the members of a group want."""

    def __init__(self) -> None:
        self.members = 0
        self._by_topic: dict[Name, Counter[Wanted]] = {}

    def add(self, wanted: Mapping[Name, Wanted]) -> None:
        self.members += 1
        for topic, what in wanted.items():
            self._by_topic.setdefault(topic, Counter())[what] += 1

    def remove(self, wanted: Mapping[Name, Wanted]) -> None:
        self.members -= 1
        for topic, what in wanted.items():
            counts = self._by_topic[topic]
            counts[what] -= 1
            if not counts[what]:
                del counts[what]
            if not counts:
                del self._by_topic[topic]

    def differing(self) -> list[Name]:
        """Topics of which not all members want the same."""
        return sorted(
            topic
            for topic, counts in self._by_topic.items()
            if len(counts) > 1 or next(iter(counts.values())) != self.members
        )


class DifferingSubscriptions:
    """Only who said in its settings what it wants counts: of others a call tells no filter for sure."""

    def __init__(self) -> None:
        self._members: dict[str, tuple[Name, dict[Name, Wanted]]] = {}
        """By client id."""
        self._by_group: dict[Name, _Wants] = {}
        self._told: dict[Name, list[Name]] = {}
        """What the log was told last, of groups that differ."""

    def __iter__(self) -> Iterator[tuple[Name, list[Name]]]:
        """Each group that has members, with the topics in which they differ."""
        for group, wants in self._by_group.items():
            yield group, wants.differing()

    def subscribed(
        self, client_id: str, group: Name, subscriptions: Mapping[Name, definition_pb2.FilterExpression]
    ) -> None:
        """A member of the group said what it wants."""
        before = self._members.get(client_id)
        wanted = {topic: wanted_by(expression) for topic, expression in subscriptions.items()}
        if before == (group, wanted):
            return
        left = self._strike(client_id)
        self._members[client_id] = group, wanted
        self._by_group.setdefault(group, _Wants()).add(wanted)
        if left is not None and left != group:
            self._tell(left)
        self._tell(group)

    def left(self, client_id: str) -> None:
        group = self._strike(client_id)
        if group is not None:
            self._tell(group)

    def _strike(self, client_id: str) -> Name | None:
        """-> the group that the client was counted in."""
        member = self._members.pop(client_id, None)
        if member is None:
            return None
        group, wanted = member
        wants = self._by_group[group]
        wants.remove(wanted)
        if not wants.members:
            del self._by_group[group]
        return group

    def _tell(self, group: Name) -> None:
        wants = self._by_group.get(group)
        differing = wants.differing() if wants is not None else []
        told = self._told.get(group, [])
        if differing == told:
            return
        if differing:
            self._told[group] = differing
            topics = [str(topic) for topic in differing]
            _logger.warning("members of a group subscribe differently", group=str(group), topics=topics)
        else:
            del self._told[group]
            _logger.info("all members of a group subscribe alike again", group=str(group))
