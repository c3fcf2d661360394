"""Who is connected: soft state, made anew from what clients say after every restart.

A client is its id, not its connection. It is gone when it says so, some seconds after its telemetry stream broke
without coming back, or, if it never had one, after a time of silence.
"""

import asyncio
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2
from kourou_broker.operations.differing_subscriptions import DifferingSubscriptions
from kourou_broker.state.definitions import Name, name_of
from kourou_service.refusal import Refused

MAX_SUBSCRIPTIONS = 1024
_MAX_SETTINGS_BYTES = 64 * 1024
_SWEEP_INTERVAL_S = 1.0


class Caller(Protocol):
    @property
    def peer(self) -> str: ...


class CommandStream(Protocol):
    """The telemetry stream of a client, as far as the broker speaks."""

    def send(self, command: service_pb2.TelemetryCommand) -> bool:
        """It leaves as soon as the stream takes it; nobody waits, and nobody hears if it does not arrive.

        False: too much waits already.
        """
        ...


@dataclass(slots=True, eq=False)
class Client:
    id: str
    last_seen: float
    """In the loop's time, seconds."""
    type: int = definition_pb2.CLIENT_TYPE_UNSPECIFIED
    group: Name | None = None
    producer_group: str = ""
    peer: str = ""
    streams: list[CommandStream] = field(default_factory=list[CommandStream])
    stream_lost: float | None = None
    settings: bytes = b""
    """As it sent them last; none if they are too large to be kept."""
    user_agent: definition_pb2.UA = field(default_factory=definition_pb2.UA)
    subscriptions: dict[Name, definition_pb2.FilterExpression] = field(
        default_factory=dict[Name, definition_pb2.FilterExpression]
    )

    def command(self, command: service_pb2.TelemetryCommand) -> bool:
        """Sends a command by the newest stream; False if the client has none, or does not read what it is sent."""
        return bool(self.streams) and self.streams[-1].send(command)

    @property
    def is_push_consumer(self) -> bool:
        return self.type == definition_pb2.PUSH_CONSUMER

    @property
    def is_simple_consumer(self) -> bool:
        return self.type == definition_pb2.SIMPLE_CONSUMER


class _Members:
    """The consumers of a group, kept in order: what is asked at every join must not sort or walk over all of them."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.simple_consumers = 0
        self.push_consumers: dict[Name, list[str]] = {}
        """Their ids by topic."""

    def add(self, client: Client) -> None:
        insort(self.ids, client.id)
        self.simple_consumers += client.is_simple_consumer
        if client.is_push_consumer:
            for topic in client.subscriptions:
                insort(self.push_consumers.setdefault(topic, []), client.id)

    def remove(self, client: Client) -> None:
        _remove(self.ids, client.id)
        self.simple_consumers -= client.is_simple_consumer
        if client.is_push_consumer:
            for topic in client.subscriptions:
                _remove(self.push_consumers[topic], client.id)
                if not self.push_consumers[topic]:
                    del self.push_consumers[topic]


class Clients:
    def __init__(self, *, silence_s: float, stream_grace_s: float, max_clients: int) -> None:
        self._silence_s = silence_s
        self._stream_grace_s = stream_grace_s
        self._max_clients = max_clients
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._by_id: dict[str, Client] = {}
        self._gone: set[str] = set()
        """Who left soon after the start, while clients that are not known may still live."""
        self._by_group: dict[Name, _Members] = {}
        self._producers: dict[Name, dict[str, Client]] = {}
        """By topic, those whose settings name it."""
        self.differing = DifferingSubscriptions()
        self._consumers = Counter[Name]()
        """How many consumers a topic has, whatever their groups."""
        self.on_topics_change: Callable[[], None] = lambda: None
        """Called when a topic has its first consumer, or none any more."""
        self.on_group_change: Callable[[Name], None] = lambda _group: None
        """Called with a group whose members, or what they subscribe to, are not as before."""
        self.on_gone: Callable[[Client], None] = lambda _client: None
        self._sweeper = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)

    def __iter__(self) -> Iterator[Client]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, client_id: str) -> Client | None:
        return self._by_id.get(client_id)

    def touch(self, client_id: str, call: Caller, producer_group: str = "") -> Client:
        """The client with this id, which gave a sign of life; a new one if it was not known."""
        client = self._by_id.get(client_id)
        if client is None:
            if len(self._by_id) >= self._max_clients:
                raise Refused(
                    definition_pb2.TOO_MANY_REQUESTS, f"{self._max_clients} clients are connected, more are not taken"
                )
            client = self._by_id[client_id] = Client(client_id, self._loop.time(), peer=call.peer)
        client.last_seen = self._loop.time()
        client.stream_lost = None  # whoever still calls is not gone with its stream
        if producer_group:
            client.producer_group = producer_group
        return client

    def join(self, client: Client, type_: int, group: Name | None, topic: Name | None = None) -> None:
        """The client consumes in a group, as far as a call tells."""
        known = client.group == group and client.type == type_ and (topic is None or topic in client.subscriptions)
        if known:
            return
        subscriptions = client.subscriptions
        if topic is not None and topic not in subscriptions:
            subscriptions = {**subscriptions, topic: definition_pb2.FilterExpression(expression="*")}
        self._change(client, type_, group, subscriptions)

    def configure(self, client: Client, settings: definition_pb2.Settings) -> None:
        """The client said in its settings what it is and wants. Raises Refused."""
        if self._by_id.get(client.id) is not client:
            return  # it has said goodbye, and would stay a member of its group for ever
        if len(settings.subscription.subscriptions) + len(settings.publishing.topics) > MAX_SUBSCRIPTIONS:
            raise Refused(
                definition_pb2.TOO_MANY_REQUESTS, f"a client names at most {MAX_SUBSCRIPTIONS} topics in its settings"
            )
        client.user_agent = settings.user_agent
        client.settings = settings.SerializeToString() if settings.ByteSize() <= _MAX_SETTINGS_BYTES else b""
        if settings.HasField("subscription"):
            group = name_of(settings.subscription.group)
            subscriptions = {name_of(entry.topic): entry.expression for entry in settings.subscription.subscriptions}
            self.differing.subscribed(client.id, group, subscriptions)
        else:
            group = None
            self.differing.left(client.id)
            subscriptions = {name_of(topic): definition_pb2.FilterExpression() for topic in settings.publishing.topics}
        self._change(client, settings.client_type, group, subscriptions)

    def stream_opened(self, client: Client, stream: CommandStream) -> None:
        client.streams.append(stream)
        client.stream_lost = None

    def stream_closed(self, client: Client, stream: CommandStream) -> None:
        client.streams.remove(stream)
        client.last_seen = self._loop.time()
        if not client.streams:
            client.stream_lost = self._loop.time()

    def leave(self, client_id: str) -> None:
        """The client is gone, by its own word or because it was silent."""
        client = self._by_id.pop(client_id, None)
        if client is not None:
            self.differing.left(client_id)
            self._tell_of_change(client.group, self._strike(client))
            if self._starting:
                self._gone.add(client_id)
            self.on_gone(client)

    def may_live(self, client_id: str) -> bool:
        """False once a client is gone. One that is not known may live for a while after the broker's start."""
        return client_id in self._by_id or (self._starting and client_id not in self._gone)

    def members(self, group: Name) -> list[Client]:
        """The group's live consumers, sorted by id."""
        members = self._by_group.get(group)
        return [self._by_id[id_] for id_ in members.ids] if members is not None else []

    def has_simple_consumer(self, group: Name) -> bool:
        members = self._by_group.get(group)
        return members is not None and members.simple_consumers > 0

    def push_consumers(self, group: Name, topic: Name) -> Sequence[str]:
        """The ids of the group's live push consumers that subscribe to the topic, sorted; to be read at once."""
        members = self._by_group.get(group)
        return members.push_consumers.get(topic, ()) if members is not None else ()

    def producers(self, topic: Name) -> list[Client]:
        """The live producers of the topic that can be sent commands, by their settings."""
        return [client for client in self._producers.get(topic, {}).values() if client.streams]

    def consumed_topics(self) -> Iterable[Name]:
        """All topics that have a consumer."""
        return self._consumers.keys()

    def close(self) -> None:
        self._sweeper.cancel()

    @property
    def _starting(self) -> bool:
        return self._loop.time() < self._started + self._silence_s

    def _change(
        self,
        client: Client,
        type_: int,
        group: Name | None,
        subscriptions: dict[Name, definition_pb2.FilterExpression],
    ) -> None:
        before = (client.type, client.group, client.subscriptions.keys())
        if before == (type_, group, subscriptions.keys()):
            client.subscriptions = subscriptions  # the expressions may be others
            return
        left = client.group
        topics_changed = self._strike(client)
        client.type, client.group, client.subscriptions = type_, group, subscriptions
        topics_changed |= self._enter(client)
        if left != group:
            self._tell_of_change(left, False)
        self._tell_of_change(group, topics_changed)

    def _tell_of_change(self, group: Name | None, topics_changed: bool) -> None:
        if topics_changed:
            self.on_topics_change()
        if group is not None:
            self.on_group_change(group)

    def _enter(self, client: Client) -> bool:
        """Whether a topic has its first consumer now."""
        if client.group is None:
            for topic in client.subscriptions:
                self._producers.setdefault(topic, {})[client.id] = client
            return False
        self._by_group.setdefault(client.group, _Members()).add(client)
        self._consumers.update(client.subscriptions.keys())
        return any(self._consumers[topic] == 1 for topic in client.subscriptions)

    def _strike(self, client: Client) -> bool:
        """Whether a topic has no consumer any more."""
        if client.group is None:
            for topic in client.subscriptions:
                producers = self._producers[topic]
                del producers[client.id]
                if not producers:
                    del self._producers[topic]
            return False
        members = self._by_group[client.group]
        members.remove(client)
        if not members.ids:
            del self._by_group[client.group]
        self._consumers.subtract(client.subscriptions.keys())
        gone = [topic for topic in client.subscriptions if not self._consumers[topic]]
        for topic in gone:
            del self._consumers[topic]
        return bool(gone)

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)
        now = self._loop.time()
        for client in list(self._by_id.values()):
            if client.streams:
                continue
            lost = client.stream_lost
            if now > client.last_seen + self._silence_s or (lost is not None and now > lost + self._stream_grace_s):
                self.leave(client.id)


def _remove(ids: list[str], id_: str) -> None:
    del ids[bisect_left(ids, id_)]
