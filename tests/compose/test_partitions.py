"""A broker is cut off from one NameServer, and from both, under load."""

import asyncio
import json
from pathlib import Path

from kourou import AsyncProducer, Message
from kourou.errors import KourouError
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from tests.cluster.load import Load
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compose import partition
from tests.compose.stack import BROKERS, NAMESRVS, Stack

QUEUES = 4
ROUTE = Path(__file__).with_name("programs") / "route.py"


async def test_a_broker_is_cut_off_from_name_servers(stack: Stack, operator: Operator, name: str) -> None:
    await asyncio.to_thread(partition.build)
    await operator.create_topic(name, queues=QUEUES)
    await operator.create_group(name)
    broker = stack.container("broker-a")
    addresses = [stack.container(namesrv).address() for namesrv in NAMESRVS]
    first, second = stack.namesrv.split(",")
    load = Load(stack.namesrv, name, name)
    async with load.running():
        await load.progressed(300)
        before = await operator.route(name, second)
        async with partition.cut_off(broker, addresses[:1]):
            await eventually(lambda: _writable(operator, first, name, {"broker-b"}), 30, what="hidden at the first")
            assert await operator.route(name, second) == before
            await load.progressed(300)
            # It asks for the route again after 30 s at the earliest.
            async with AsyncProducer(second) as knowing:
                await knowing.send(Message(name, b"knowing"))
                async with partition.cut_off(broker, addresses[1:]):
                    for namesrv in (first, second):
                        await eventually(lambda namesrv=namesrv: _writable(operator, namesrv, name, {"broker-b"}), 20)
                        # What is there can still be read.
                        assert len(await operator.route(name, namesrv)) == len(before)
                    # Who knows the broker is served as ever.
                    sent = [await knowing.send(Message(name, b"knowing")) for _ in range(2 * QUEUES)]
                    assert {result.broker for result in sent} == set(BROKERS)
                    await load.progressed(300)
        for namesrv in (first, second):
            await eventually(lambda namesrv=namesrv: _writable(operator, namesrv, name, set(BROKERS)), 45)
            assert await operator.route(name, namesrv) == before
        await load.progressed(300)
        await load.finish(operator)
    load.check()
    assert not load.errors


async def test_a_broker_whose_packets_are_lost_is_removed_until_it_is_heard_again(
    stack: Stack, operator: Operator, name: str
) -> None:
    """Nobody is told: its stream to that NameServer stays, and so it is known by its silence."""
    await asyncio.to_thread(partition.build)
    await operator.create_topic(name, queues=QUEUES)
    await asyncio.to_thread(stack.scale, "namesrv", 1)
    added, broker = stack.container("namesrv"), stack.container("broker-a")

    async def routed_to(*expected: str) -> bool:
        ask = ("python", "-c", ROUTE.read_text(), f"{added.address()}:8080", name)
        seen = json.loads(await asyncio.to_thread(stack.container("admin").exec, *ask))
        assert seen == sorted(expected), seen
        return True

    await eventually(lambda: routed_to(*BROKERS), 20, what="both brokers at the new NameServer")
    async with partition.cut_off(broker, [added.address()], silently=True):
        await eventually(lambda: routed_to("broker-b"), 20, what="the silent broker's removal")
        assert "a broker's stream broke" not in added.log()
        for namesrv in stack.namesrv.split(","):
            assert await _writable(operator, namesrv, name, set(BROKERS))
    await eventually(lambda: routed_to(*BROKERS), 45, what="the broker that is heard again")


async def _writable(operator: Operator, namesrv: str, topic: str, brokers: set[str]) -> bool:
    """Whether these are the brokers that the NameServer sends writers to."""
    try:
        route = await operator.route(topic, namesrv)
    except KourouError:
        return False
    return {queue.broker.name for queue in route if queue.permission == v2.READ_WRITE} == brokers
