"""Lite topics by chance: each is consumed in order, nothing is lost, and nothing that was settled comes again."""

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.state import snapshot
from tests.unit.broker.alone import Broker, Message, handle, simulated
from tests.unit.broker.lite import COMPLETE_ADD, Code, lite, lite_broker, lite_topics, sync

NAMES = "abc"
STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from(NAMES)),
    st.tuples(st.just("receive"), st.integers(1, 4)),
    st.tuples(st.just("ack"), st.integers(0, 5)),
    st.tuples(st.just("give back"), st.integers(0, 5)),
    st.tuples(st.just("suspend"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.integers(1, 15)),
    st.tuples(st.just("crash"), st.just(0)),
    st.tuples(st.just("restart"), st.booleans()),
)


class World:
    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.sent: defaultdict[str, list[str]] = defaultdict(list)
        self.settled: defaultdict[str, list[str]] = defaultdict(list)
        self.held: list[Message] = []

    async def step(self, kind: str, value: int | str) -> None:
        match kind:
            case "send":
                await self.send(str(value))
            case "receive":
                await self.receive(int(value))
            case "crash" | "restart":
                await self.start_again(crash=kind == "crash", by_snapshot=bool(value))
            case "wait":
                await self.receive(1, wait_s=int(value))
            case _ if self.held:
                await self.settle(kind, self.held.pop(int(value) % len(self.held)))

    async def send(self, name: str) -> None:
        id_ = f"{name}{len(self.sent[name])}"
        assert (await self.broker.send(lite(id_))).status.code == Code.OK
        self.sent[name].append(id_)

    async def receive(self, batch_size: int, wait_s: float = 0) -> None:
        got = await self.broker.receive(batch_size=batch_size, wait_s=wait_s, invisible_s=10)
        by_name: defaultdict[str, list[str]] = defaultdict(list)
        for each in got:
            by_name[each.system_properties.lite_topic].append(each.system_properties.message_id)
        for name, ids in by_name.items():
            left = [id_ for id_ in self.sent[name] if id_ not in self.settled[name]]
            assert ids == left[: len(ids)], f"{name}: {ids} came, {left} are left"
            # all that was lent of it before is due again, and its handles are void
            self.held = [each for each in self.held if each.system_properties.lite_topic != name]
        self.held += got

    async def settle(self, how: str, message: Message) -> None:
        system = message.system_properties
        if how == "ack":
            code = await self.broker.ack(message)
            if code == Code.OK:
                self.settled[system.lite_topic].append(system.message_id)
            return
        await self.broker.change(handle(message), 3, suspend=how == "suspend")

    async def start_again(self, *, crash: bool, by_snapshot: bool) -> None:
        if by_snapshot:
            await self.broker.core.snapshots.take()
        before = snapshot.encode(self.broker.core.state, 0)
        await (self.broker.crash() if crash else self.broker.restart())
        assert crash or snapshot.encode(self.broker.core.state, 0) == before
        assert await sync(self.broker, "consumer", COMPLETE_ADD, list(NAMES)) == Code.OK

    async def drain(self) -> None:
        idle = 0
        while idle < 2:
            before = sum(map(len, self.settled.values()))
            await self.receive(4, wait_s=20)
            while self.held:
                await self.settle("ack", self.held.pop(0))
            idle = idle + 1 if sum(map(len, self.settled.values())) == before else 0


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=40), st.booleans())
def test_lite_topics_by_chance(steps: list[tuple[str, int | str]], keeps_order: bool) -> None:
    @simulated
    async def run() -> None:
        order = record_pb2.ORDER_FIFO if keeps_order else record_pb2.ORDER_CONCURRENT
        broker = await lite_broker(group={"order": order, "max_attempts": 1000})
        world = World(broker)
        assert await sync(broker, "consumer", COMPLETE_ADD, list(NAMES)) == Code.OK
        for kind, value in steps:
            await world.step(kind, value)
        await world.drain()
        assert {name: sorted(ids) for name, ids in world.settled.items() if ids} == {
            name: sorted(ids) for name, ids in world.sent.items() if ids
        }
        assert set(lite_topics(broker).by_name) == {name for name, ids in world.sent.items() if ids}
        assert all(topic.type == definition_pb2.LITE for topic in broker.core.state.topics.values())

    run()
