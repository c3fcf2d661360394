"""A broker is killed and comes again, while official clients have all sorts of things under way."""

import asyncio
import time
from contextlib import AsyncExitStack

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.log.v1 import record_pb2
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compat.conftest import NewHost
from tests.compat.official import JAVA, PYTHON, Client, Run, bodies, messages
from tests.compat.test_lite import make
from tests.compat.test_order import by_group

GROUPS = "abc"
EACH = 10
TYPES = {"fifo": v2.FIFO, "delay": v2.DELAY, "transaction": v2.TRANSACTION}
BACK_S = 60.0
"""Clients come back by themselves: those of lite topics say every 30 s what they read."""


class Scene:
    """What one client does: it consumes in order, waits for a delayed message, and for the end of a transaction, and
    reads a lite topic."""

    def __init__(self, client: Client, operator: Operator, running: AsyncExitStack, name: str) -> None:
        self._client = client
        self._operator = operator
        self._topics = {kind: f"{name}-{kind}" for kind in (*TYPES, "lite")}
        self._running = running
        self._due_ms = 0

    async def begin(self) -> None:
        for kind, type_ in TYPES.items():
            order = record_pb2.ORDER_FIFO if kind == "fifo" else record_pb2.ORDER_CONCURRENT
            await self._operator.create_topic(self._topics[kind], message_type=type_)
            await self._operator.create_group(self._topics[kind], order=order)
        await make(self._operator, self._topics["lite"])
        enter = self._running.enter_async_context
        self._listeners: dict[str, Run] = {}
        self._producers: dict[str, Run] = {}
        for kind, topic in self._topics.items():
            lite = {"lite_topics": ["l"]} if kind == "lite" else {}
            here = {"topic": topic, "group": topic}
            self._listeners[kind] = await enter(self._client.listening(**here, **lite))
            self._producers[kind] = await enter(self._client.producing(topic=topic, answer="COMMIT"))
        await self._send_in_order(range(EACH))
        self._lite = await self._producers["lite"].answer("id", messages=messages("before", lite_topic="l"))
        await self._listeners["lite"].until_heard(1)
        await self._listeners["fifo"].until_heard(EACH)
        await self._send_in_order(range(EACH, 2 * EACH))  # these are under way when the broker dies

    async def hold(self) -> None:
        self._due_ms = (int(time.time()) + 4) * 1000
        delayed = messages("delayed", deliver_at_ms=self._due_ms)
        self._later = await self._producers["delay"].answer("id", messages=delayed)
        self._open = await self._producers["transaction"].answer("id", messages=messages("open"), end="open")

    async def check(self) -> None:
        await asyncio.gather(self._in_order(), self._delayed(), self._open_transaction(), self._of_lite())

    async def _send_in_order(self, numbers: range) -> None:
        made = [each for number in numbers for group in GROUPS for each in messages(str(number), group=group)]
        before = len(self._producers["fifo"].of("id"))
        self._producers["fifo"].tell(messages=made)
        await self._producers["fifo"].until(before + len(made), of="id")

    async def _in_order(self) -> None:
        listener = self._listeners["fifo"]

        async def back() -> bool:
            return "id" in await self._producers["fifo"].answer("id", messages=messages(str(2 * EACH), group="a"))

        await eventually(back, BACK_S, 0.5)
        await eventually(lambda: str(2 * EACH) in by_group(listener.heard)["a"], BACK_S)
        await eventually(lambda: self._settled("fifo"), BACK_S)
        for group, came in by_group(listener.heard).items():
            numbers = [int(body) for body in came]
            assert numbers == sorted(numbers)  # what was not acknowledged comes once more
            assert set(numbers) == set(range(2 * EACH + (group == "a")))

    async def _delayed(self) -> None:
        [heard] = await self._listeners["delay"].until_heard(1, BACK_S)
        assert heard["id"] == self._later["id"]
        assert heard["at_ms"] >= self._due_ms
        await eventually(lambda: self._settled("delay"), BACK_S)
        assert len(self._listeners["delay"].heard) == 1

    async def _open_transaction(self) -> None:
        producer = self._producers["transaction"]
        if self._client.program is PYTHON:
            # It opens its telemetry stream again when it says its settings, every 5 minutes: somebody else is asked.
            topic = self._topics["transaction"]
            producer = await self._running.enter_async_context(self._client.producing(topic=topic, answer="COMMIT"))
        [heard] = await self._listeners["transaction"].until_heard(1, BACK_S)
        assert heard["id"] == self._open["id"]
        assert {told["checked"] for told in producer.of("checked")} == {self._open["id"]}
        await eventually(lambda: self._settled("transaction"), BACK_S)
        assert len(self._listeners["transaction"].heard) == 1

    async def _of_lite(self) -> None:
        async def back() -> bool:
            return "id" in await self._producers["lite"].answer("id", messages=messages("after", lite_topic="l"))

        await eventually(back, BACK_S, 0.5)
        await eventually(lambda: "after" in bodies(self._listeners["lite"].heard), BACK_S)
        await eventually(lambda: self._settled("lite"), BACK_S)
        assert bodies(self._listeners["lite"].heard).count("before") == 1, "it was acknowledged"

    async def _settled(self, kind: str) -> bool:
        return await self._operator.lag(self._topics[kind], self._topics[kind]) == 0


async def test_clients_go_on_where_they_were(host_of: NewHost, quick_cluster: Cluster, name: str) -> None:
    (broker,) = quick_cluster.brokers
    async with Operator(quick_cluster) as operator, AsyncExitStack() as running:
        scenes = [
            Scene(Client(host_of(program), quick_cluster, name), operator, running, f"{program.name}-{name}")
            for program in (PYTHON, JAVA)
        ]
        await asyncio.gather(*(scene.begin() for scene in scenes))
        await asyncio.gather(*(scene.hold() for scene in scenes))
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        await asyncio.to_thread(quick_cluster.wait_until_registered, broker)
        await asyncio.gather(*(scene.check() for scene in scenes))
