"""Random lives of delayed messages: each one is delivered once, not before its time, or was recalled."""

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from tests.unit.broker.alone import Broker, simulated
from tests.unit.broker.test_delay import KIB, crash, delayed, drop, fill, pending, power_cut, recall, restart, small

Code = definition_pb2.Code


class Send(NamedTuple):
    delays_s: list[float]


class Recall(NamedTuple):
    which: int


class Advance(NamedTuple):
    seconds: float


class Again(NamedTuple):
    way: int


class Drop(NamedTuple):
    """Old segments go."""


class DropUnderway(NamedTuple):
    """The broker dies while they go."""

    after_s: float


WAYS = (restart, crash, power_cut)
STEPS = st.lists(
    st.one_of(
        st.builds(Send, st.lists(st.floats(-1, 60), min_size=1, max_size=8)),
        st.builds(Send, st.lists(st.sampled_from([10.0, 20.0]), min_size=1, max_size=8)),
        st.builds(Recall, st.integers(0, 1000)),
        st.builds(Advance, st.floats(0, 20)),
        st.builds(Again, st.integers(0, len(WAYS) - 1)),
        st.builds(Drop),
        st.builds(DropUnderway, st.floats(0, 0.2)),
    ),
    max_size=25,
)


@dataclass
class Life:
    broker: Broker
    due_ms: dict[str, int] = field(default_factory=dict[str, int])
    handles: list[str] = field(default_factory=list[str])
    recalled: set[str] = field(default_factory=set[str])
    came: set[str] = field(default_factory=set[str])

    async def take(self, step: NamedTuple) -> None:
        match step:
            case Send(delays_s):
                await self.send(delays_s)
            case Recall(which):
                await self.recall(which)
            case Advance(seconds):
                await asyncio.sleep(seconds)
            case Again(way):
                await WAYS[way](self.broker)
            case Drop():
                for _ in range(2):
                    await fill(self.broker, 50)
                    await self.receive()
                await drop(self.broker)
            case DropUnderway(after_s):
                await fill(self.broker, 60)
                self.broker.shard.process.start(self.broker.core.check_retention())
                await asyncio.sleep(after_s)
                await self.receive()
                await crash(self.broker)
            case _:
                raise AssertionError(step)
        await self.receive()

    async def send(self, delays_s: list[float]) -> None:
        first = len(self.due_ms)
        messages = [delayed(self.broker, f"m{first + number}", delay_s) for number, delay_s in enumerate(delays_s)]
        for one in messages:
            system = one.system_properties
            self.due_ms[system.message_id] = system.delivery_timestamp.ToMilliseconds()
        answer = await self.broker.send(*messages)
        assert answer.status.code == Code.OK, answer.status
        self.handles += [entry.recall_handle for entry in answer.entries if entry.recall_handle]

    async def recall(self, which: int) -> None:
        if self.handles:
            answer = await recall(self.broker, self.handles[which % len(self.handles)])
            assert answer.status.code in (Code.OK, Code.NOT_FOUND), answer.status
            if answer.status.code == Code.OK:
                assert answer.message_id not in self.recalled
                self.recalled.add(answer.message_id)

    async def receive(self) -> None:
        while some := await self.broker.receive(topic="later", wait_s=0):
            assert await self.broker.ack(*some, topic="later") == Code.OK
            for one in some:
                id_ = one.system_properties.message_id
                assert id_ not in self.came, f"{id_} came twice"
                assert self.broker.now_ms() >= self.due_ms[id_], f"{id_} came early"
                self.came.add(id_)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_each_comes_once_or_was_recalled(steps: list[NamedTuple]) -> None:
    @simulated
    async def run() -> None:
        # What fires in a step is received before retention could take it.
        life = Life(await small(retention_bytes=112 * KIB))
        for step in steps:
            await life.take(step)
        await asyncio.sleep(100)
        await life.receive()
        assert pending(life.broker) == 0
        assert life.came | life.recalled == life.due_ms.keys(), "some were lost"
        assert not life.came & life.recalled, "some were recalled and came all the same"

    run()
