"""Who is connected: soft state, made anew from what clients say after every restart.

A client is its id, not its connection. It is gone when it says so, some seconds after its telemetry stream broke
without coming back, or, if it never had one, after a time of silence.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.state.definitions import Name, name_of
from kourou_service.refusal import Refused

MAX_SUBSCRIPTIONS = 1024
_SWEEP_INTERVAL_S = 1.0


class Caller(Protocol):
    @property
    def peer(self) -> str: ...


@dataclass(slots=True, eq=False)
class Client:
    id: str
    last_seen: float
    """In the loop's time, seconds."""
    type: int = definition_pb2.CLIENT_TYPE_UNSPECIFIED
    group: Name | None = None
    producer_group: str = ""
    peer: str = ""
    streams: int = 0
    stream_lost: float | None = None
    user_agent: definition_pb2.UA = field(default_factory=definition_pb2.UA)
    subscriptions: dict[Name, definition_pb2.FilterExpression] = field(
        default_factory=dict[Name, definition_pb2.FilterExpression]
    )

    @property
    def is_push_consumer(self) -> bool:
        return self.type == definition_pb2.PUSH_CONSUMER

    @property
    def is_simple_consumer(self) -> bool:
        return self.type == definition_pb2.SIMPLE_CONSUMER


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
        self._by_group: dict[Name, dict[str, Client]] = {}
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
        self._leave_group(client, unless=group)
        client.type = type_
        client.group = group
        if topic is not None:
            client.subscriptions.setdefault(topic, definition_pb2.FilterExpression(expression="*"))
        self._enter_group(client)

    def configure(self, client: Client, settings: definition_pb2.Settings) -> None:
        """The client said in its settings what it is and wants. Raises Refused."""
        if self._by_id.get(client.id) is not client:
            return  # it has said goodbye, and would stay a member of its group for ever
        if len(settings.subscription.subscriptions) + len(settings.publishing.topics) > MAX_SUBSCRIPTIONS:
            raise Refused(
                definition_pb2.TOO_MANY_REQUESTS, f"a client names at most {MAX_SUBSCRIPTIONS} topics in its settings"
            )
        before = (client.type, client.group, set(client.subscriptions))
        group = name_of(settings.subscription.group) if settings.HasField("subscription") else None
        self._leave_group(client, unless=group)
        client.type = settings.client_type
        client.group = group
        client.user_agent = settings.user_agent
        if settings.HasField("subscription"):
            client.subscriptions = {
                name_of(entry.topic): entry.expression for entry in settings.subscription.subscriptions
            }
        else:
            client.subscriptions = {
                name_of(topic): definition_pb2.FilterExpression() for topic in settings.publishing.topics
            }
        if before != (client.type, client.group, set(client.subscriptions)):
            self._enter_group(client)

    def stream_opened(self, client: Client) -> None:
        client.streams += 1
        client.stream_lost = None

    def stream_closed(self, client: Client) -> None:
        client.streams -= 1
        client.last_seen = self._loop.time()
        if client.streams == 0:
            client.stream_lost = self._loop.time()

    def leave(self, client_id: str) -> None:
        """The client is gone, by its own word or because it was silent."""
        client = self._by_id.pop(client_id, None)
        if client is not None:
            self._leave_group(client, unless=None)
            if self._starting:
                self._gone.add(client_id)
            self.on_gone(client)

    def may_live(self, client_id: str) -> bool:
        """False once a client is gone. One that is not known may live for a while after the broker's start."""
        return client_id in self._by_id or (self._starting and client_id not in self._gone)

    def members(self, group: Name) -> list[Client]:
        """The group's live consumers, sorted by id."""
        return [client for _id, client in sorted(self._by_group.get(group, {}).items())]

    def close(self) -> None:
        self._sweeper.cancel()

    @property
    def _starting(self) -> bool:
        return self._loop.time() < self._started + self._silence_s

    def _enter_group(self, client: Client) -> None:
        if client.group is not None:
            self._by_group.setdefault(client.group, {})[client.id] = client
            self.on_group_change(client.group)

    def _leave_group(self, client: Client, *, unless: Name | None) -> None:
        group = client.group
        if group is None or group == unless:
            return
        members = self._by_group.get(group, {})
        if members.pop(client.id, None) is not None:
            if not members:
                del self._by_group[group]
            self.on_group_change(group)

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)
        now = self._loop.time()
        for client in list(self._by_id.values()):
            if client.streams:
                continue
            lost = client.stream_lost
            if now > client.last_seen + self._silence_s or (lost is not None and now > lost + self._stream_grace_s):
                self.leave(client.id)
