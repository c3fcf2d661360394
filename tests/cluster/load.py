"""Producers and consumers at work, and a record of what they were promised."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import NamedTuple

from kourou import (
    AsyncProducer,
    AsyncPushConsumer,
    AsyncSimpleConsumer,
    KourouError,
    Message,
    PartialFailure,
    ReceivedMessage,
)
from tests.cluster.acknowledged import Acknowledged
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually

INVISIBLE_S = 8.0
_AT_A_TIME = 8
_PAUSE_S = 0.02


class Place(NamedTuple):
    broker: str
    queue: int
    offset: int

    @classmethod
    def of(cls, message: ReceivedMessage) -> "Place":
        return cls(message.broker, message.queue_id, message.offset)


class Load:
    """Producers send, simple consumers of one group receive and acknowledge, and a push consumer of another listens."""

    def __init__(self, namesrv: str, topic: str, group: str, push_group: str | None = None) -> None:
        self._namesrv, self._topic, self._group, self._push_group = namesrv, topic, group, push_group
        self._numbers = count()
        self._producing = self._consuming = True
        self.acknowledged: dict[bytes, Place] = {}
        """What a broker confirmed to have stored, and where."""
        self.received: dict[Place, bytes] = {}
        self.confirmed: set[Place] = set()
        """What a broker confirmed to be settled."""
        self.came_again: list[Place] = []
        """Delivered to a group that had settled it."""
        self.heard: set[bytes] = set()
        self._push_acknowledged = Acknowledged()
        self._push_handles: dict[Place, list[str]] = {}
        """Of each delivery."""
        self.errors = Counter[str]()

    @asynccontextmanager
    async def running(self, producers: int = 3, consumers: int = 2) -> AsyncIterator[None]:
        """Call `finish` at the end of the block."""
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            for _ in range(producers):
                producer = await stack.enter_async_context(AsyncProducer(self._namesrv))
                tasks.create_task(self._produce(producer))
            for _ in range(consumers):
                consumer = await stack.enter_async_context(
                    AsyncSimpleConsumer(self._group, {self._topic: "*"}, self._namesrv)
                )
                tasks.create_task(self._consume(consumer))
            if self._push_group is not None:
                stack.push_async_callback(self._push_acknowledged.close)
                await stack.enter_async_context(
                    AsyncPushConsumer(
                        self._push_group,
                        {self._topic: "*"},
                        self._listen,
                        self._namesrv,
                        transport=self._push_acknowledged,
                    )
                )
            try:
                yield
            finally:
                self._producing = self._consuming = False

    async def finish(self, operator: Operator) -> None:
        """No more is sent, and the consumers have received and settled everything."""
        self._producing = False
        try:
            await eventually(lambda: not self.missing(), 20 + INVISIBLE_S, what="every acknowledged message")
            await eventually(lambda: self.settled(operator), 20 + INVISIBLE_S, what="no lag")
        except AssertionError as error:
            raise AssertionError(await self._describe(operator)) from error

    async def settled(self, operator: Operator) -> bool:
        groups = [group for group in (self._group, self._push_group) if group is not None]
        try:
            return not any([await operator.lag(group, self._topic) for group in groups])
        except KourouError:  # not all is up again
            return False

    def missing(self) -> set[bytes]:
        """Acknowledged to the producer, and not received by each group."""
        stored = set(self.acknowledged)
        missing = stored - set(self.received.values())
        return missing | (stored - self.heard) if self._push_group is not None else missing

    async def progressed(self, messages: int, timeout_s: float = 20.0) -> None:
        """So many more were acknowledged to the producers."""
        goal = len(self.acknowledged) + messages
        await eventually(lambda: len(self.acknowledged) >= goal, timeout_s, what=f"{messages} more messages")

    def check(self) -> None:
        """What holds, whatever was killed."""
        assert not self.missing(), self.missing()
        assert not self.came_again, f"delivered again after they were settled: {self.came_again}"
        places = Counter(self.acknowledged.values())
        assert max(places.values()) == 1, f"one place for several messages: {places.most_common(3)}"
        for body, place in self.acknowledged.items():
            assert self.received.get(place, body) == body, f"another message at {place}"

    async def _describe(self, operator: Operator) -> str:
        lines = [f"{len(self.acknowledged)} acknowledged, {len(self.received)} received, errors: {dict(self.errors)}"]
        received = set(self.received.values())
        for body in sorted(self.missing())[:20]:
            who = "simple" if body not in received else "push"
            lines.append(f"{body.decode()} at {self.acknowledged[body]} did not come to the {who} group")
        for group in filter(None, (self._group, self._push_group)):
            for queue, progress in (await operator.progress(group, self._topic)).items():
                if progress.lag:
                    lines.append(f"{group} {queue}: {str(progress).replace(chr(10), ' ')}")
        return "\n".join(lines)

    async def _produce(self, producer: AsyncProducer) -> None:
        while self._producing:
            await asyncio.gather(*(self._send(producer) for _ in range(_AT_A_TIME)))
            await asyncio.sleep(_PAUSE_S)

    async def _send(self, producer: AsyncProducer) -> None:
        body = f"message {next(self._numbers)}".encode()
        try:
            result = await producer.send(Message(self._topic, body))
        except KourouError as error:
            self.errors[f"send: {type(error).__name__}: {error}"] += 1
            return
        self.acknowledged[body] = Place(result.broker, result.queue_id, result.offset)

    async def _consume(self, consumer: AsyncSimpleConsumer) -> None:
        while self._consuming:
            try:
                messages = await consumer.receive(wait_s=1, invisible_duration_s=INVISIBLE_S)
            except KourouError as error:
                self.errors[f"receive: {type(error).__name__}: {error}"] += 1
                continue
            for message in messages:
                place = Place.of(message)
                if place in self.confirmed:
                    self.came_again.append(place)
                before = self.received.setdefault(place, message.body)
                assert before == message.body, f"{before} and {message.body} at {place}"
            await self._settle(consumer, messages)

    async def _settle(self, consumer: AsyncSimpleConsumer, messages: list[ReceivedMessage]) -> None:
        if not messages:
            return
        outcomes: list[object] = [None] * len(messages)
        try:
            await consumer.ack(messages)
        except PartialFailure as error:
            outcomes = list(error.outcomes)
        except KourouError as error:
            outcomes = [error] * len(messages)
        for message, outcome in zip(messages, outcomes, strict=True):
            if outcome is None:
                self.confirmed.add(Place.of(message))
            else:
                self.errors[f"ack: {type(outcome).__name__}"] += 1

    async def _listen(self, message: ReceivedMessage) -> None:
        place = Place.of(message)
        handles = self._push_handles.setdefault(place, [])
        if not self._push_acknowledged.handles.isdisjoint(handles):
            self.came_again.append(place)
        handles.append(message.receipt_handle)
        self.heard.add(message.body)
