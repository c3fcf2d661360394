"""A shard is killed under load, or hangs: nothing that was promised is lost, and clients go on with the other one."""

import asyncio

from tests.cluster.load import Load
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compose.stack import Stack

PAUSE_S = 30.0


async def test_a_broker_is_killed_under_load(stack: Stack, operator: Operator, name: str) -> None:
    """By kill -9 from outside, after which an operator starts it, and of all its processes, after which Docker does."""
    load = await _load(stack, operator, name)
    broker = stack.container("broker-a")
    async with load.running():
        await load.progressed(500)
        await asyncio.to_thread(broker.kill)
        before = _stored_on(load, "broker-b")
        await load.progressed(300)
        assert _stored_on(load, "broker-b") > before + 100
        await asyncio.to_thread(broker.start)
        await _takes_messages(load, "broker-a")
        restarts = broker.inspect()["RestartCount"]
        await asyncio.to_thread(broker.crash)
        await load.progressed(300)
        await eventually(lambda: broker.inspect()["RestartCount"] == restarts + 1, 30, what="a restart by Docker")
        await _takes_messages(load, "broker-a")
        await load.finish(operator)
    load.check()
    # Progress survives one more kill: nothing that was settled comes again.
    await asyncio.to_thread(broker.kill)
    await asyncio.to_thread(broker.start)
    await eventually(lambda: load.settled(operator), 30, what="no lag after the restart")


async def test_a_broker_hangs_under_load(stack: Stack, operator: Operator, name: str) -> None:
    """`docker pause`: its connections stay, and nothing answers."""
    load = await _load(stack, operator, name)
    broker = stack.container("broker-b")
    async with load.running():
        await load.progressed(300)
        await asyncio.to_thread(broker.pause)
        paused_s = asyncio.get_running_loop().time()
        try:
            before = _stored_on(load, "broker-a")
            # A send that first goes to the one that hangs takes most of its time-out: many a one does.
            await load.progressed(50, timeout_s=PAUSE_S)
            assert _stored_on(load, "broker-a") >= before + 50
            # What is tested is that long a silence, not how soon the others are used.
            await asyncio.sleep(PAUSE_S - (asyncio.get_running_loop().time() - paused_s))
        finally:
            await asyncio.to_thread(broker.unpause)
        await _takes_messages(load, "broker-b")
        await load.finish(operator)
    load.check()
    assert not [error for error in load.errors if error.startswith("send")], load.errors


async def _load(stack: Stack, operator: Operator, name: str) -> Load:
    simple, push = f"{name}-simple", f"{name}-push"
    await operator.create_topic(name)
    for group in (simple, push):
        await operator.create_group(group)
    return Load(stack.namesrv, name, simple, push)


async def _takes_messages(load: Load, broker: str) -> None:
    goal = _stored_on(load, broker) + 50
    await eventually(lambda: _stored_on(load, broker) >= goal, 45, what=f"messages on {broker}")


def _stored_on(load: Load, broker: str) -> int:
    return sum(place.broker == broker for place in load.acknowledged.values())
