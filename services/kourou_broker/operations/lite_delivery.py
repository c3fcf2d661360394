"""Delivery to a lite group: each poll gets messages of the lite topics that its client reads.

A group may read thousands of lite topics of which few have anything. So for each client there is a set of those that
may have something: a lite topic enters it with a new message, when what was lent of it is settled or comes up again,
and when the client begins to read it; it leaves when a look finds nothing.
"""

from collections.abc import Iterable, Iterator

from kourou_broker.operations.lending import Context
from kourou_broker.operations.lite_groups import lite_topics_of
from kourou_broker.operations.lite_interests import LiteInterests
from kourou_broker.operations.lite_leases import LiteLeases
from kourou_broker.operations.lite_lending import LiteLending
from kourou_broker.operations.poll import Poll
from kourou_broker.operations.subscription import Subscription
from kourou_broker.state.definitions import Group, Queue, Topic


class LiteSubscription(Subscription):
    def __init__(self, context: Context, group: Group, topic: Topic) -> None:
        self._lite_topics = lite_topics_of(topic)
        self._leases = LiteLeases(context.may_live, context.numbers.incarnation, context.clock.now_ms())
        self.interests = LiteInterests()
        self._ready: dict[str, dict[str, None]] = {}
        """By client, the lite topics that may have something, the longest there first."""
        self._lite_lending = LiteLending(context, group, topic, self._leases, self._queue_ready)
        super().__init__(context, group, topic)

    def add(self, client: str, name: str) -> None:
        """The client reads the lite topic from now on."""
        if self.interests.add(client, name):
            self._ready.setdefault(client, {})[name] = None
            self.wake()

    def remove(self, client: str, names: Iterable[str]) -> None:
        """The client does not read these lite topics any more. What it was lent stays with it until it is settled."""
        gone = list(names)
        self.interests.remove(client, gone)
        ready = self._ready.get(client, {})
        for name in gone:
            ready.pop(name, None)

    def forget(self, client: str) -> None:
        """The client reads nothing any more."""
        self.interests.forget(client)
        self._ready.pop(client, None)

    def offset_set(self, queue: int) -> None:
        """The group's progress in a lite topic was set, in this turn."""
        self._lite_lending.offset_set(queue)
        self._queue_ready(queue)

    def has_messages(self, name: str) -> None:
        """The lite topic may have something to lend."""
        for client in self.interests.holders(name):
            self._ready.setdefault(client, {})[name] = None
        self.wake()

    def client_gone(self, client_id: str) -> None:
        self.forget(client_id)
        super().client_gone(client_id)

    def offsets_set(self) -> None:
        self._ready = {client: dict.fromkeys(names) for client, names in self.interests.clients.items()}
        super().offsets_set()

    def _to_serve(self) -> list[Poll]:
        for queue in self._leases.come_up(self._context.clock.now_ms()):
            self._queue_ready(queue)
        # A poll that has not waited yet may repeat an attempt.
        return [poll for poll in self._polls if not poll.waited or self._ready.get(poll.client_id)]

    def _has_nothing_else(self, poll: Poll) -> bool:
        return False

    def _candidates(self, poll: Poll) -> Iterator[Queue]:
        ready = self._ready.get(poll.client_id, {})
        while ready:
            name = next(iter(ready))
            del ready[name]  # before the look: what comes during it must count
            lite_topic = self._lite_topics.by_name.get(name)
            if lite_topic is not None:
                yield lite_topic.queue

    def _queue_ready(self, queue: int) -> None:
        lite_topic = self._lite_topics.by_queue.get(queue)
        if lite_topic is not None:
            self.has_messages(lite_topic.name)

    def _new_due(self) -> LiteLeases:
        return self._leases

    def _new_lending(self) -> LiteLending:
        return self._lite_lending
