"""Receives messages when asked, and settles each as the caller says."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from typing_extensions import Unpack

from kourou import settings
from kourou.backoff import Exponential
from kourou.client import Client, ClientOptions
from kourou.consume_stream import Terms
from kourou.doors import NoSuchDoor
from kourou.errors import (
    PASSING,
    Forbidden,
    InvalidArgument,
    KourouError,
    PartialFailure,
    TimeoutExceeded,
)
from kourou.filters import Filter, filter_fault
from kourou.names import topic_fault
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.received import ReceivedMessage
from kourou.receiving import Poll, new_attempt_id, receive
from kourou.route import Queue
from kourou.settlement import MAX_ACK_COUNT, acknowledge, change_invisible_duration
from kourou.stream_receiver import StreamReceiver, settle

_log = logging.getLogger(__name__)

WAIT_S = 20.0
INVISIBLE_DURATION_S = 30.0
MAX_MESSAGES = 32
_SLICE_S = 0.5
"""Of several brokers one is asked at a time. A poll that is cancelled may lose what it was just given until its
invisible time is over, so none is: each waits this long, and the next broker has its turn."""
_AGAIN = Exponential(initial_s=0.05, max_s=1.0)


@dataclass(frozen=True, slots=True)
class _Source:
    queue: Queue
    wanted: Filter


class Receiver:
    """What all consumers have that receive when asked."""

    def __init__(
        self,
        client_type: v2.ClientType,
        group: str,
        subscriptions: Mapping[str, Filter],
        namesrv: str | Sequence[str] | None,
        options: ClientOptions,
    ) -> None:
        self._client_type = client_type
        self._group = group
        self._subscriptions = checked_subscriptions(subscriptions)
        self._client = Client(namesrv, self._settings, group=group, options=options)
        self._turn = 0
        self._receivers: dict[tuple[str, str], StreamReceiver] = {}

    @property
    def client_id(self) -> str:
        return self._client.wire.client_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def receive(
        self,
        max_messages: int = MAX_MESSAGES,
        *,
        invisible_duration_s: float = INVISIBLE_DURATION_S,
        wait_s: float = WAIT_S,
    ) -> list[ReceivedMessage]:
        """1 to `max_messages` messages, from one of the brokers; none when nothing came within `wait_s`. Each is
        delivered again unless it is acknowledged within `invisible_duration_s`."""
        with self._client.in_use():
            return await self._receive_any(max_messages, invisible_duration_s, wait_s)

    async def ack(self, messages: ReceivedMessage | Sequence[ReceivedMessage]) -> None:
        """They are not delivered to the group again. Raises InvalidReceiptHandle when the invisible time was over,
        PartialFailure when only some could be acknowledged."""
        messages = [messages] if isinstance(messages, ReceivedMessage) else messages
        shares = _shares(messages)
        outcomes: list[KourouError | None] = [None] * len(messages)
        with self._client.in_use():
            answers = await asyncio.gather(*(self._ack([messages[index] for index in share]) for share in shares))
        for share, answer in zip(shares, answers, strict=True):
            for index, outcome in zip(share, answer, strict=True):
                outcomes[index] = outcome
        failures = [outcome for outcome in outcomes if outcome is not None]
        if failures and len(failures) == len(messages):
            raise failures[0]
        if failures:
            raise PartialFailure("acknowledging", outcomes)

    async def change_invisible_duration(self, message: ReceivedMessage, duration_s: float) -> None:
        """The message is delivered again that long from now, at once with 0. Its receipt handle is a new one."""
        with self._client.in_use():
            if message.lent is None:
                await change_invisible_duration(self._client.wire, self._group, message, duration_s)
            else:
                message.lent = await settle(message.lent, [message.offset], duration_s)

    async def close(self) -> None:
        """What was received and not acknowledged goes to others after its invisible time."""
        receivers = list(self._receivers.values())
        await asyncio.gather(self._client.close(), *(receiver.close() for receiver in receivers))

    def _settings(self) -> v2.Settings:
        return settings.subscribing(self._client_type, self._group, self._subscriptions)

    async def _receive_any(
        self, max_messages: int, invisible_duration_s: float, wait_s: float
    ) -> list[ReceivedMessage]:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_s
        polls = failures = 0
        last_error: KourouError | None = None
        while True:
            source, of_count = await self._next_source()
            left_s = max(0.0, deadline_s - loop.time())
            # A first round over all brokers does not wait: one of them may have messages ready.
            poll_s = left_s if of_count == 1 else 0.0 if polls < of_count else min(left_s, _SLICE_S)
            polls += 1
            try:
                poll = Poll(self._group, source.queue, source.wanted, max_messages, poll_s, invisible_duration_s)
                messages = await self._receive(poll)
                if messages:
                    return messages
                last_error = None
            except PASSING as error:
                self._client.check_open()
                failures += 1
                last_error = error
                self._client.routes.pull_soon(source.queue.topic)
                await asyncio.sleep(min(_AGAIN.jittered_s(failures), max(0.0, deadline_s - loop.time())))
            if polls >= of_count and loop.time() >= deadline_s:
                if last_error is not None:
                    raise last_error
                return []

    async def _next_source(self) -> tuple[_Source, int]:
        """The broker whose turn it is, and how many there are."""
        sources: list[_Source] = []
        for topic, wanted in self._subscriptions.items():
            route = await self._client.routes.get(topic)
            sources += [_Source(queue, wanted) for queue in route.readable_brokers()]
        await self._leave({(source.queue.topic, source.queue.broker) for source in sources})
        if not sources:
            topics = ", ".join(self._subscriptions)
            if not topics:
                raise InvalidArgument("no topic is subscribed")
            text = f"{topics}: no queue can be read now; `kourou route TOPIC` shows the queues and their permissions"
            raise Forbidden(v2.FORBIDDEN, text)
        self._turn += 1
        return sources[self._turn % len(sources)], len(sources)

    async def _leave(self, sources: Collection[tuple[str, str]]) -> None:
        """What is not received from any more, unless messages of it are still to be settled."""
        for key, receiver in list(self._receivers.items()):
            if key not in sources and receiver.is_idle:
                del self._receivers[key]
                await receiver.close()

    async def _receive(self, poll: Poll) -> list[ReceivedMessage]:
        if self._client.doors.has_stream(poll.queue.address):
            try:
                return await self._receive_by_stream(poll)
            except NoSuchDoor:
                self._client.doors.lack_stream(poll.queue.address)
        return await self._receive_by_poll(poll)

    async def _receive_by_stream(self, poll: Poll) -> list[ReceivedMessage]:
        key = poll.queue.topic, poll.queue.broker
        terms = Terms(poll.wanted, poll.invisible_duration_s)
        receiver = self._receivers.get(key)
        if receiver is None:
            receiver = self._receivers[key] = StreamReceiver(self._client, self._group, *key, terms)
        return await receiver.receive(terms, poll.max_messages, poll.wait_s)

    async def _receive_by_poll(self, poll: Poll) -> list[ReceivedMessage]:
        attempt_id = new_attempt_id()
        try:
            return await receive(self._client.wire, poll, attempt_id)
        except TimeoutExceeded:
            # The answer may be lost with messages in it; asked again in the same name, the broker repeats it.
            return await receive(self._client.wire, replace(poll, wait_s=0.0), attempt_id)

    async def _ack(self, messages: Sequence[ReceivedMessage]) -> Sequence[KourouError | None]:
        """Messages of one share."""
        lent = messages[0].lent
        try:
            if lent is None:
                return await acknowledge(self._client.wire, self._group, messages)
            await settle(lent, [message.offset for message in messages])
        except KourouError as error:
            return [error] * len(messages)
        return [None] * len(messages)


class AsyncSimpleConsumer(Receiver):
    """Receives on one event loop. All consumers of a group share its messages."""

    def __init__(
        self,
        group: str,
        subscriptions: Mapping[str, Filter],
        namesrv: str | Sequence[str] | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        """`subscriptions`: for each topic the tags to receive, as in "paid || shipped", or "*" for all, or `Sql(...)`.
        `namesrv`: "host:port" of one or several NameServers; else from KOUROU_NAMESRV, else the local cluster."""
        super().__init__(v2.SIMPLE_CONSUMER, group, subscriptions, namesrv, options)

    async def subscribe(self, topic: str, tags: Filter = "*") -> None:
        """From the next `receive` on, by tags or `Sql(...)`; replaces what a topic is filtered by already."""
        self._subscriptions.update(checked_subscriptions({topic: tags}))
        await self._client.session.announce()

    async def unsubscribe(self, topic: str) -> None:
        if self._subscriptions.pop(topic, None) is not None:
            self._client.routes.forget(topic)
            await self._client.session.announce()


def checked_subscriptions(subscriptions: Mapping[str, Filter]) -> dict[str, Filter]:
    """A copy. Raises InvalidArgument."""
    if isinstance(subscriptions, str):
        raise InvalidArgument(f'subscriptions are {{topic: tags}}, as in {{"{subscriptions}": "*"}}')
    for topic, wanted in subscriptions.items():
        fault = topic_fault(topic) or filter_fault(topic, wanted)
        if fault:
            raise InvalidArgument(fault)
    return dict(subscriptions)


def _shares(messages: Sequence[ReceivedMessage]) -> list[list[int]]:
    """By index, cut into what one request can settle: those of a lease, or so many of one topic and broker."""
    groups: defaultdict[object, list[int]] = defaultdict(list)
    for index, message in enumerate(messages):
        groups[message.lent or (message.topic, message.address)].append(index)
    return [
        share[start : start + size]
        for share in groups.values()
        for size in (len(share) if messages[share[0]].lent is not None else MAX_ACK_COUNT,)
        for start in range(0, len(share), size)
    ]
