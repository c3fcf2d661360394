"""What lite consumers say of the lite topics they read, and what becomes of it.

Nothing of it is kept over a restart: clients say all of it again every 30 seconds.
"""

import asyncio
from collections.abc import Callable, Sequence

from kourou.names import lite_topic_fault
from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2
from kourou_broker.operations.clients import Client, Clients
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.lite_delivery import LiteSubscription
from kourou_broker.operations.lite_topics import check_name
from kourou_broker.state import State
from kourou_broker.state.definitions import Group, Queue
from kourou_service.lite_rules import LITE_CONSUMERS, subscription_quota
from kourou_service.refusal import Refused

MAX_PAIRS = 100_000
"""Of a client and a lite topic, on one broker."""
SILENCE_S = 180.0
_SWEEP_INTERVAL_S = 30.0
_SURPLUS = 300
"""What a client may name beyond its quota at once: its quota may just have become smaller."""


class LiteSubscriptions:
    def __init__(
        self,
        state: State,
        journal: Journal,
        clients: Clients,
        find: Callable[[Group], LiteSubscription],
        known: Callable[[], Sequence[LiteSubscription]],
    ) -> None:
        """find: the delivery to a lite group. known: those that there are."""
        self._state = state
        self._journal = journal
        self._clients = clients
        self._find = find
        self._known = known
        self._loop = asyncio.get_running_loop()

    def sync(self, group: Group, client: Client, request: service_pb2.SyncLiteSubscriptionRequest) -> None:
        """Wait for the journal before the answer: an offset may have been set. Raises Refused."""
        names = dict.fromkeys(request.lite_topic_set)
        quota = subscription_quota(group.definition.lite)
        if len(names) > quota + _SURPLUS:
            raise _over_quota(f"{len(names)} lite topics in one request; the group's quota for a client is {quota}")
        subscription = self._find(group)
        match request.action:
            case definition_pb2.PARTIAL_ADD:
                self._add(subscription, client, list(names), quota, request.offset_option)
            case definition_pb2.PARTIAL_REMOVE:
                subscription.remove(client.id, names)
            case definition_pb2.COMPLETE_ADD:
                self._replace(subscription, client, list(names))
            case definition_pb2.COMPLETE_REMOVE:
                subscription.forget(client.id)
                return
            case _:
                raise Refused(definition_pb2.BAD_REQUEST, f"unknown action {request.action} of a lite subscription")
        subscription.interests.last_synced[client.id] = self._loop.time()

    async def run(self) -> None:
        """Forgets what clients have not said again for long, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_S)
            oldest = self._loop.time() - SILENCE_S
            for subscription in self._known():
                for client, synced in list(subscription.interests.last_synced.items()):
                    if synced < oldest:
                        subscription.forget(client)

    def _add(
        self,
        subscription: LiteSubscription,
        client: Client,
        names: Sequence[str],
        quota: int,
        start: definition_pb2.OffsetOption,
    ) -> None:
        for name in names:
            check_name(name)
        interests = subscription.interests
        known = interests.names(client.id)
        new = sum(name not in known for name in names)
        if new and len(known) + new > quota:
            raise _over_quota(f"the client reads {len(known)} lite topics, and the group's quota is {quota}")
        self._check_pairs(new)
        if start.WhichOneof("offset_type") is not None:
            self._journal.require_room()  # before anything is done
        for name in names:
            if subscription.group.definition.lite.exclusive:
                self._evict(subscription, name, client)
            self._start_at(subscription, name, start)
            subscription.add(client.id, name)

    def _replace(self, subscription: LiteSubscription, client: Client, names: Sequence[str]) -> None:
        """The client reads these and no others. That evicts nobody: what another one has stays with him."""
        interests = subscription.interests
        wanted = dict.fromkeys(name for name in names if not lite_topic_fault(name))  # nobody ever sends to others
        self._check_pairs(len(wanted) - len(interests.names(client.id)))
        subscription.remove(client.id, [name for name in interests.names(client.id) if name not in wanted])
        exclusive = subscription.group.definition.lite.exclusive
        for name in wanted:
            if exclusive and any(holder != client.id for holder in interests.holders(name)):
                _tell_of_loss(client, name)
            else:
                subscription.add(client.id, name)

    def _check_pairs(self, more: int) -> None:
        if more > 0 and sum(each.interests.pairs for each in self._known()) + more > MAX_PAIRS:
            raise _over_quota(f"the broker's clients read {MAX_PAIRS} lite topics already, its limit")

    def _evict(self, subscription: LiteSubscription, name: str, winner: Client) -> None:
        for holder in [each for each in subscription.interests.holders(name) if each != winner.id]:
            subscription.remove(holder, (name,))
            loser = self._clients.get(holder)
            if loser is not None:
                _tell_of_loss(loser, name)

    def _start_at(self, subscription: LiteSubscription, name: str, start: definition_pb2.OffsetOption) -> None:
        """Sets where the group goes on in the lite topic, if the client asks for that."""
        topic, group = subscription.topic, subscription.group
        lite_topic = topic.lite.by_name.get(name) if topic.lite is not None else None
        if lite_topic is None:
            return  # it begins with its first message
        queue = lite_topic.queue
        progress = self._state.progress.get((group.id, topic.id, queue.id))
        offset = _start(start, queue, progress.low if progress is not None else None)
        if offset is not None:
            self._journal.set_offset(group.id, topic.id, queue.id, offset)
            subscription.offset_set(queue.id)


def _start(start: definition_pb2.OffsetOption, queue: Queue, committed: int | None) -> int | None:
    """Where to go on, within what the queue holds; None: where the group is."""
    match start.WhichOneof("offset_type"):
        case "policy" if start.policy == definition_pb2.OffsetOption.MIN:
            offset = queue.first_offset
        case "policy" if start.policy == definition_pb2.OffsetOption.MAX:
            offset = queue.next_offset
        case "offset":
            offset = start.offset
        case "tail_n" if committed is not None:
            offset = committed - start.tail_n
        case _:
            return None
    return min(max(offset, queue.first_offset), queue.next_offset)


def _tell_of_loss(client: Client, name: str) -> None:
    """Other clients than lite ones may fail at this command."""
    if client.type in LITE_CONSUMERS:
        command = service_pb2.NotifyUnsubscribeLiteCommand(lite_topic=name)
        client.command(service_pb2.TelemetryCommand(notify_unsubscribe_lite_command=command))


def _over_quota(message: str) -> Refused:
    return Refused(definition_pb2.LITE_SUBSCRIPTION_QUOTA_EXCEEDED, message)
