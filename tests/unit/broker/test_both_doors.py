"""The same work through either door has the same results, whatever it is."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from hypothesis import given, settings
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.google.protobuf.duration_pb2 import Duration
from kourou.protocol.kourou.stream.v1 import stream_pb2
from tests.simulation.time import simulate
from tests.unit.broker.alone import Broker, attempt, handle, message
from tests.unit.broker.streams import PREFIX, Consumer, Publisher, as_stored, headers, offsets, settlement

Code = definition_pb2.Code
INVISIBLE_S = 5.0
TAGS = ("", "red", "blue")


class Sent(NamedTuple):
    body: bytes
    tag: str
    keys: tuple[str, ...]
    properties: tuple[tuple[str, str], ...]


class Got(NamedTuple):
    """A delivery as both doors tell of it."""

    offset: int
    body: bytes
    attempt: int
    message_id: str
    tag: str
    keys: tuple[str, ...]
    properties: tuple[tuple[str, str], ...]


class Door(Protocol):
    async def send(self, number: int, messages: Sequence[Sent]) -> None: ...
    async def receive(self, most: int) -> list[Got]: ...
    async def ack(self, some: Sequence[Got]) -> list[bool]: ...
    async def again(self, one: Got, after_s: int) -> bool: ...
    async def bury(self, one: Got) -> bool: ...
    def reopen(self) -> None: ...


class RocketmqDoor:
    def __init__(self, broker: Broker, tags: str) -> None:
        self._broker = broker
        self._tags = tags
        self._handles: dict[tuple[int, int], str] = {}

    async def send(self, number: int, messages: Sequence[Sent]) -> None:
        made = [
            message(sent.body, _id(number, index), tag=sent.tag, keys=sent.keys) for index, sent in enumerate(messages)
        ]
        for each, sent in zip(made, messages, strict=True):
            each.user_properties.update(sent.properties)
        assert (await self._broker.send(*made)).status.code == Code.OK

    async def receive(self, most: int) -> list[Got]:
        received = await self._broker.receive(batch_size=most, invisible_s=INVISIBLE_S, tags=self._tags)
        got = [_got(each, each.system_properties.queue_offset, attempt(each)) for each in received]
        for each, stored in zip(got, received, strict=True):
            self._handles[each.offset, each.attempt] = handle(stored)
        return got

    async def ack(self, some: Sequence[Got]) -> list[bool]:
        answer = await self._broker.ack_all(*(self._handles[each.offset, each.attempt] for each in some))
        return [entry.status.code == Code.OK for entry in answer.entries]

    async def again(self, one: Got, after_s: int) -> bool:
        answer = await self._broker.change(self._handles[one.offset, one.attempt], after_s)
        return answer.status.code == Code.OK

    async def bury(self, one: Got) -> bool:
        return await self._broker.forward(self._handles[one.offset, one.attempt]) == Code.OK

    def reopen(self) -> None:
        """It has no streams."""


class StreamDoor:
    def __init__(self, broker: Broker, tags: str) -> None:
        self._broker = broker
        self._tags = tags
        self._leases: dict[tuple[int, int], stream_pb2.Delivery] = {}
        self.reopen()

    def reopen(self) -> None:
        self._publisher = Publisher(self._broker)
        self._consumer = Consumer(self._broker, invisible_s=INVISIBLE_S, tags=self._tags)

    async def send(self, number: int, messages: Sequence[Sent]) -> None:
        made = headers(
            *(sent.body for sent in messages),
            first_message_id=_id(number, 0),
            tags=(tags := sorted({sent.tag for sent in messages if sent.tag})),
            tag_numbers=[tags.index(sent.tag) + 1 if sent.tag else 0 for sent in messages],
            keys=[key for sent in messages for key in sent.keys],
            key_counts=[len(sent.keys) for sent in messages],
            property_names=[name for sent in messages for name, _ in sent.properties],
            property_values=[value for sent in messages for _, value in sent.properties],
            property_counts=[len(sent.properties) for sent in messages],
        )
        answer = await self._publisher.sent(made, b"".join(sent.body for sent in messages))
        assert answer.status.code == Code.OK, answer

    async def receive(self, most: int) -> list[Got]:
        got: list[Got] = []
        for delivery in await self._consumer.receive(most):
            for offset, each in zip(offsets(delivery), _messages(delivery), strict=True):
                got.append(_got(each, offset, delivery.attempt))
                self._leases[offset, delivery.attempt] = delivery
        return got

    async def ack(self, some: Sequence[Got]) -> list[bool]:
        settled = await self._settle(*((each, {"acknowledged": stream_pb2.Acknowledged()}) for each in some))
        return [result.code == Code.OK for result in settled.results] or [True] * len(some)

    async def again(self, one: Got, after_s: int) -> bool:
        settled = await self._settle((one, {"again_after": Duration(seconds=after_s)}))
        return settled.status.code == Code.OK

    async def bury(self, one: Got) -> bool:
        settled = await self._settle((one, {"dead_letter": stream_pb2.DeadLetter()}))
        return settled.status.code == Code.OK

    async def _settle(self, *some: tuple[Got, dict[str, Any]]) -> stream_pb2.Settled:
        return await self._consumer.settle(
            *(settlement(self._leases[each.offset, each.attempt], [each.offset], **outcome) for each, outcome in some)
        )


def _id(number: int, index: int) -> str:
    return f"{PREFIX}{number * 256 + index:08X}"


def _got(received: definition_pb2.Message, offset: int, attempt: int) -> Got:
    system = received.system_properties
    properties = tuple(sorted(received.user_properties.items()))
    return Got(offset, received.body, attempt, system.message_id, system.tag, tuple(system.keys), properties)


def _messages(delivery: stream_pb2.Delivery) -> list[definition_pb2.Message]:
    if delivery.messages:
        return [definition_pb2.Message.FromString(each) for each in delivery.messages]
    batch = as_stored(delivery.headers, delivery.bodies)
    found: list[definition_pb2.Message] = []
    for index in delivery.indexes or range(len(batch.headers.body_bytes)):
        made = batch.message(index)
        made.system_properties.CopyFrom(batch.properties(index))
        found.append(made)
    return found


_TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=5)
_MESSAGE = st.builds(
    Sent,
    st.binary(min_size=1, max_size=40),
    st.sampled_from(TAGS),
    st.lists(_TEXT, max_size=2).map(tuple),
    st.dictionaries(_TEXT.map("p".__add__), _TEXT, max_size=2).map(lambda found: tuple(sorted(found.items()))),
)
_STEP = st.one_of(
    st.tuples(st.just("send"), st.lists(_MESSAGE, min_size=1, max_size=6)),
    st.tuples(st.just("receive"), st.integers(1, 8)),
    st.tuples(st.just("ack"), st.integers(1, 5)),
    st.tuples(st.just("again"), st.integers(0, 20)),
    st.tuples(st.just("bury"), st.none()),
    st.tuples(st.just("wait"), st.sampled_from((1, 6, 30))),
    st.tuples(st.sampled_from(("restart", "crash")), st.none()),
)


async def _work(door: Door, broker: Broker, steps: Sequence[tuple[str, Any]]) -> list[object]:
    """What was seen, step by step."""
    seen: list[object] = []
    held: list[Got] = []
    for number, (what, of) in enumerate(steps):
        if what == "send":
            await door.send(number, of)
        elif what == "receive":
            held += (got := await door.receive(of))
            seen.append(got)
        elif what == "ack" and held:
            some, held = held[:of], held[of:]
            seen.append(await door.ack(some))
        elif what == "again" and held:
            seen.append(await door.again(held.pop(), of))
        elif what == "bury" and held:
            seen.append(await door.bury(held.pop(0)))
        elif what == "wait":
            await asyncio.sleep(of + 0.5)  # no lease ends just then
        elif what in ("restart", "crash"):
            await asyncio.sleep(0.25)  # leases are not waited for: now the disk has them
            await getattr(broker, what)()
            door.reopen()
    seen.append([(each.body, each.system_properties.message_id) for each in await broker.dead_letters()])
    progress = next(iter(broker.core.state.progress.values()), None)
    if progress is not None:
        seen.append((progress.high, sorted((at, lease.attempt) for at, lease in progress.pending.items())))
    return seen


@given(steps=st.lists(_STEP, min_size=5, max_size=40), tags=st.sampled_from(("*", "red", "red || blue")))
@settings(max_examples=150, deadline=None)
def test_the_same_work_has_the_same_results(steps: list[tuple[str, Any]], tags: str) -> None:
    async def through(kind: type[RocketmqDoor] | type[StreamDoor]) -> list[object]:
        broker = await Broker.started(group={"max_attempts": 3})
        return await _work(kind(broker, tags), broker, steps)

    assert simulate(through(StreamDoor)) == simulate(through(RocketmqDoor))


@given(steps=st.lists(_STEP, min_size=5, max_size=40))
@settings(max_examples=60, deadline=None)
def test_a_message_does_not_care_by_which_door_it_came(steps: list[tuple[str, Any]]) -> None:
    """Sent by one, received by the other."""

    class Mixed(StreamDoor):
        def __init__(self, broker: Broker) -> None:
            self._other = RocketmqDoor(broker, "*")
            super().__init__(broker, "*")

        async def send(self, number: int, messages: Sequence[Sent]) -> None:
            await (self._other if number % 2 else super()).send(number, messages)

    async def mixed() -> list[object]:
        broker = await Broker.started(group={"max_attempts": 3})
        work = await _work(Mixed(broker), broker, steps)
        return work[-2:]

    async def plain() -> list[object]:
        broker = await Broker.started(group={"max_attempts": 3})
        return (await _work(RocketmqDoor(broker, "*"), broker, steps))[-2:]

    # A credit of the stream door ends where messages of the other door begin, so single receives may differ; what is
    # asked here is that all come in their order and are settled alike when each receive takes one message.
    steps = [(what, 1 if what == "receive" else of) for what, of in steps]
    assert simulate(mixed()) == simulate(plain())
