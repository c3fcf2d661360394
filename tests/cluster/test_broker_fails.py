"""A broker is killed under load, or hangs, and comes back: nothing that was promised is lost."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from functools import partial

from kourou import AsyncSimpleConsumer
from tests.cluster.cluster import Cluster, is_running, processes_below
from tests.cluster.load import Load
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually


async def test_a_broker_killed_twice_under_load(new_cluster: Callable[..., Cluster]) -> None:
    # What was lent to a push consumer and never reached it comes again after this time.
    cluster = new_cluster(broker={"invisible_time_ms": 3000})
    broker = cluster.broker("broker-a")
    async with Operator(cluster) as operator:
        await operator.create_topic("load", queues=4)
        await operator.create_group("simple")
        await operator.create_group("push")
        load = Load(cluster.namesrv, "load", "simple", "push")
        async with load.running():
            for _ in range(2):
                await load.progressed(1500)
                helpers = processes_below(broker.pid)
                await asyncio.to_thread(broker.kill)
                await load.progressed(300)  # the other broker takes them all
                await asyncio.to_thread(broker.start)
                await eventually(partial(_all_ended, helpers), what="the end of the killed one's helpers")
            await load.progressed(500)
            await load.finish(operator)
        print(f"{len(load.acknowledged)} sent, errors: {load.errors}")
        load.check()
        assert {place.broker for place in load.acknowledged.values()} == {"broker-a", "broker-b"}

        # Progress survives one more kill: nothing that was settled comes again.
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        await eventually(lambda: load.settled(operator), 15, what="no lag after the restart")
        async with AsyncSimpleConsumer("simple", {"load": "*"}, cluster.namesrv) as consumer:
            assert await consumer.receive(wait_s=2) == []


async def test_a_broker_that_hangs(new_cluster: Callable[..., Cluster]) -> None:
    """Its connections stay, and nothing answers: producers go to the other broker within their time-out."""
    cluster = new_cluster()
    broker = cluster.broker("broker-a")
    async with Operator(cluster) as operator:
        await operator.create_topic("load", queues=4)
        await operator.create_group("simple")
        load = Load(cluster.namesrv, "load", "simple")
        async with load.running():
            await load.progressed(300)
            broker.signal(signal.SIGSTOP)
            try:
                # Longer than a producer's time-out: what first goes to the one that hangs takes most of it.
                await load.progressed(50)
            finally:
                broker.signal(signal.SIGCONT)
            await load.progressed(300)
            await load.finish(operator)
        load.check()
        assert not [error for error in load.errors if error.startswith("send")], load.errors


def _all_ended(pids: Sequence[int]) -> bool:
    return not any(map(is_running, pids))
