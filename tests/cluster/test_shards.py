"""A shard more and a shard less: topics are spread to it, and it is drained again with nothing lost."""

import asyncio
import json
from collections.abc import Callable

import pytest

from kourou import AsyncProducer, AsyncSimpleConsumer, Message
from kourou.errors import KourouError
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.admin.v1 import admin_pb2, admin_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from tests.cluster.cluster import BrokerNode, Cluster
from tests.cluster.load import Load
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually

pytestmark = pytest.mark.timeout(240)
QUEUES = 2
USED = 40


async def kourou(cluster: Cluster, *args: str, code: int = 0) -> str:
    done = await asyncio.to_thread(cluster.kourou, *args, code=code)
    return done.stderr if code else done.stdout


async def registered(cluster: Cluster) -> list[str]:
    return [row["name"] for row in json.loads(await kourou(cluster, "broker", "list", "--json"))]


async def known_to(operator: Operator, broker: BrokerNode) -> list[str]:
    return list((await operator.describe(broker.address)).known_brokers)


async def all_met(operator: Operator, cluster: Cluster) -> None:
    """Every broker has met every other: that is what must be forgotten later."""
    names = [broker.name for broker in cluster.brokers]

    async def met() -> bool:
        return all([await known_to(operator, broker) == names for broker in cluster.brokers])

    await eventually(met, 45, what="brokers that know each other")


async def test_a_shard_comes_takes_its_share_and_goes_under_load(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(brokers=3)
    a, b, c = cluster.brokers
    async with Operator(cluster) as operator:
        await operator.create_topic("orders", QUEUES, brokers=["broker-a", "broker-b"])
        for group in ("team", "listeners"):
            await operator.create_group(group)
        await all_met(operator, cluster)
        load = Load(cluster.namesrv, "orders", "team", "listeners")
        async with load.running():
            await load.progressed(300)
            assert "1 of 1 topics" in await kourou(cluster, "topic", "spread")
            assert "there already" in await kourou(cluster, "topic", "spread", "--topic", "orders")
            await eventually(lambda: stored_on(load, "broker-c") > 100, 45, what="messages on the new shard")

            out = await kourou(cluster, "broker", "drain", "broker-c")
            assert "broker broker-c is out of the cluster and has stopped; nothing is left on it" in out
            assert c.wait(15) == 0
            after = stored_on(load, "broker-c")
            await load.progressed(300)
            assert stored_on(load, "broker-c") == after
            await load.finish(operator)
        load.check()
        assert await registered(cluster) == ["broker-a", "broker-b"]
        for broker in (a, b):
            assert await known_to(operator, broker) == ["broker-a", "broker-b"]

        # It comes back as it went: out of use, until it is put on.
        c.start()
        cluster.wait_until_registered(c)
        async with AsyncProducer(cluster.namesrv, watch_routes=True) as producer:

            async def used() -> set[str]:
                return {(await producer.send(Message("orders", b"x"))).broker for _ in range(9)}

            assert await used() == {"broker-a", "broker-b"}
            await kourou(cluster, "broker", "on", "broker-c")

            async def all_used() -> bool:
                return await used() == {"broker-a", "broker-b", "broker-c"}

            await eventually(all_used, 10)


def stored_on(load: Load, broker: str) -> int:
    return sum(place.broker == broker for place in load.acknowledged.values())


async def test_what_nobody_consumes_holds_a_drain_up_and_is_named(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(brokers=2)
    async with Operator(cluster) as operator:
        await operator.create_topic("orders", QUEUES)
        await operator.create_topic("unread", QUEUES)
        await operator.create_topic("only-here", QUEUES, brokers=["broker-b"])
        for group in ("team", "elsewhere"):
            await operator.create_group(group)
        refused = await kourou(cluster, "broker", "drain", "broker-b", code=1)
        assert "only-here" in refused
        assert "kourou topic spread" in refused
        assert (await operator.describe(cluster.brokers[1].address)).permission == v2.READ_WRITE
        await kourou(cluster, "topic", "spread")

        async with AsyncProducer(cluster.namesrv) as producer:
            for topic, count in (("orders", 6), ("unread", 4)):
                for _ in range(count):
                    await producer.send(Message(topic, b"x"))
        async with AsyncSimpleConsumer("team", {"orders": "*"}, cluster.namesrv) as consumer:
            # They stay lent when the consumer is gone.
            while "broker-b" not in {message.broker for message in await consumer.receive(wait_s=5)}:
                pass
        refused = await kourou(cluster, "broker", "drain", "broker-b", code=1)
        assert "for group team, of which no member reads it" in refused
        assert "of unread that no group reads" in refused
        assert (await operator.describe(cluster.brokers[1].address)).permission == v2.READ

        out = await kourou(cluster, "broker", "drain", "broker-b", "--force")
        assert "messages are left" in out
        assert "of unread that no group ever read" in out
        assert cluster.brokers[1].wait(15) == 0
        refused = await kourou(cluster, "broker", "drain", "broker-a", code=1)
        assert "no broker but broker-a takes messages" in refused


async def test_a_broker_that_is_lost_for_good_is_forgotten(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(
        brokers=2, namesrv={"eviction_s": 2, "scan_interval_s": 0.2}, broker={"heartbeat_interval_s": 0.5}
    )
    a, b = cluster.brokers
    async with Operator(cluster) as operator:
        await all_met(operator, cluster)
        assert "is registered" in await kourou(cluster, "broker", "forget", "broker-b", code=1)
        b.kill()

        async def evicted() -> bool:
            return await registered(cluster) == ["broker-a"]

        await eventually(evicted, 10)
        assert "forgotten by broker-a" in await kourou(cluster, "broker", "forget", "broker-b")
        assert await known_to(operator, a) == ["broker-a"]
        assert "no broker knows" in await kourou(cluster, "broker", "forget", "broker-b", code=1)
        # A NameServer that starts does not wait for it.
        namesrv = cluster.namesrvs[0]
        namesrv.kill()
        namesrv.start()
        await eventually(lambda: '"open for clients"' in namesrv.output, 10)


async def test_a_broker_that_serves_is_not_stopped(cluster: Cluster, operator: Operator) -> None:
    with pytest.raises(KourouError, match="serves clients"):
        await operator.ask(cluster.brokers[0].address, broker_rpc.STOP_BROKER, broker_pb2.StopBrokerRequest())
    request = broker_pb2.ForgetBrokerRequest(broker="broker-a")
    with pytest.raises(KourouError, match="cannot forget itself"):
        await operator.ask(cluster.brokers[0].address, broker_rpc.FORGET_BROKER, request)
    with pytest.raises(KourouError, match="name is missing"):
        await operator.ask_admin(admin_rpc.FORGET_BROKER, admin_pb2.ForgetBrokerRequest())
    for args in (("broker", "drain", "nobody"), ("topic", "spread", "--broker", "nobody")):
        assert "there is no broker 'nobody'" in await kourou(cluster, *args, code=1)
    assert "there is no topic" in await kourou(cluster, "topic", "spread", "--topic", "nothing", code=1)


async def test_a_broker_that_was_away_is_brought_up_to_date_and_resurrects_nothing(
    new_cluster: Callable[..., Cluster],
) -> None:
    cluster = new_cluster()
    _, b = cluster.brokers
    async with Operator(cluster) as operator:
        for topic in ("deleted", "changed", "again"):
            await operator.create_topic(topic, QUEUES)
        for group in ("deleted-group", "changed-group", "again-group"):
            await kourou(cluster, "group", "create", group)
        await _use(cluster, "changed", "again-group")
        await _use(cluster, "again", "changed-group")
        b.end()
        for args in (
            ("topic", "delete", "deleted", "--yes"),
            ("topic", "change", "changed", "--queues", "3", "--permission", "read"),
            ("topic", "delete", "again", "--yes"),
            ("topic", "create", "again", "--queues", "1"),
            ("group", "delete", "deleted-group", "--yes"),
            ("group", "change", "changed-group", "--max-attempts", "3"),
            ("group", "create", "new-group"),
            ("group", "delete", "again-group", "--yes"),
            ("group", "create", "again-group"),
        ):
            await kourou(cluster, *args)
        b.start()
        cluster.wait_until_registered(b)

        async def level() -> bool:
            topics = await operator.ask(b.address, broker_rpc.LIST_TOPICS, broker_pb2.ListTopicsRequest())
            groups = await operator.ask(b.address, broker_rpc.LIST_GROUPS, broker_pb2.ListGroupsRequest())
            held = {topic.name.name: (topic.queues, topic.permission) for topic in topics.topics if not topic.deleted}
            attempts = {group.name.name: group.retry.max_attempts for group in groups.groups if not group.deleted}
            # The second `again` is another topic with the same name: nothing of the first one is there.
            assert held == {"changed": (3, v2.READ), "again": (1, v2.READ_WRITE)}, held
            assert attempts == {"changed-group": 3, "new-group": 16, "again-group": 16}, attempts
            assert await operator.progress("changed-group", "again") == {}
            # And so it is with the group: it begins anew.
            assert await operator.progress("again-group", "changed") == {}
            return True

        await eventually(level, 15)
        # And for good: at the NameServers, and after another start.
        b.kill()
        b.start()
        cluster.wait_until_registered(b)
        await level()
        for namesrv in cluster.namesrv.split(","):
            assert await operator.route("deleted", namesrv) == []
            assert len(await operator.route("changed", namesrv)) == 6
            assert len(await operator.route("again", namesrv)) == 2
        assert await _receive(cluster, "again", "changed-group", USED) == 0
        assert await _receive(cluster, "changed", "again-group", USED) == USED


async def _use(cluster: Cluster, topic: str, group: str) -> None:
    """Messages on all brokers, of which the group settles half."""
    async with AsyncProducer(cluster.namesrv) as producer:
        sent = [await producer.send(Message(topic, b"old")) for _ in range(USED)]
    assert {result.broker for result in sent} == {broker.name for broker in cluster.brokers}
    await _receive(cluster, topic, group, USED // 2)


async def _receive(cluster: Cluster, topic: str, group: str, most: int) -> int:
    """How many messages come, and are settled."""
    settled = 0
    async with AsyncSimpleConsumer(group, {topic: "*"}, cluster.namesrv) as consumer:
        while settled < most and (messages := await consumer.receive(max_messages=most - settled, wait_s=2)):
            await consumer.ack(messages)
            settled += len(messages)
    return settled
