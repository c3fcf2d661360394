"""NameServers come and go: clients do not notice, and brokers find their way back."""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable

from kourou import AsyncProducer, Message, TopicNotFound
from tests.cluster.cluster import Cluster
from tests.cluster.load import Load
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually

QUEUES = 4


async def test_a_name_server_stops_under_load(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster()
    first, second = cluster.namesrvs
    async with Operator(cluster) as operator:
        await operator.create_topic("load", queues=QUEUES)
        await operator.create_group("simple")
        load = Load(cluster.namesrv, "load", "simple")
        async with load.running():
            await load.progressed(300)
            await asyncio.to_thread(first.kill)
            await load.progressed(300)
            # Who begins now finds the other one.
            async with AsyncProducer(f"{first.address},{second.address}") as late:
                await late.send(Message("load", b"late"))
            # Without any NameServer, brokers and clients go on with what they know.
            assert await asyncio.to_thread(second.end) == 0
            await load.progressed(500)
            await asyncio.to_thread(cluster.namesrvs[0].start)
            await asyncio.to_thread(cluster.namesrvs[1].start)
            await load.progressed(300)
            await load.finish(operator)
        load.check()
        assert not load.errors
        assert cluster.broker("broker-a").running
        assert cluster.broker("broker-b").running


async def test_name_servers_that_restart_empty_give_no_half_route(new_cluster: Callable[..., Cluster]) -> None:
    """What they answer while brokers come back one after the other: not yet, or everything."""
    cluster = new_cluster()
    # They learn of each other when they start, and keep it.
    for broker in cluster.brokers:
        assert await asyncio.to_thread(broker.end) == 0
        await asyncio.to_thread(broker.start)
        await asyncio.to_thread(cluster.wait_until_registered, broker)
    async with Operator(cluster) as operator:
        await operator.create_topic("whole", queues=QUEUES)
        slow = cluster.broker("broker-b")
        for namesrv in cluster.namesrvs:
            await asyncio.to_thread(namesrv.kill)
        # The slow one cannot register for a while.
        slow.signal(signal.SIGSTOP)
        for namesrv in cluster.namesrvs:
            await asyncio.to_thread(namesrv.start)
        seen = Counter[int]()
        until_s = asyncio.get_running_loop().time() + 4
        while asyncio.get_running_loop().time() < until_s:
            for namesrv in cluster.namesrvs:
                seen[await _queues(operator, namesrv.address)] += 1
            await asyncio.sleep(0.1)
        assert set(seen) == {-1}, f"routes of so many queues were given: {seen}"
        slow.signal(signal.SIGCONT)

        async def whole() -> bool:
            shown = [await _queues(operator, namesrv.address) for namesrv in cluster.namesrvs]
            seen.update(shown)
            return shown == [2 * QUEUES] * 2

        await eventually(whole, 15, what="the whole route at both")
        assert set(seen) == {-1, 2 * QUEUES}, f"routes of so many queues were given: {seen}"


async def _queues(operator: Operator, namesrv: str) -> int:
    """-1: it does not answer for routes yet."""
    try:
        return len(await operator.route("whole", namesrv))
    except TopicNotFound:
        return 0
    except Exception:
        return -1
