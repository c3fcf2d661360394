"""Groups of official clients: members that share, differ and die, and where a group begins and is set back to."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp
from kourou.protocol.kourou.admin.v1 import admin_pb2, admin_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.test_broker_metrics import page
from tests.cluster.waiting import eventually
from tests.compat.conftest import NewHost
from tests.compat.official import JAVA, PYTHON, Client, Program, Run, bodies, messages
from tests.compat.test_order import by_group, shared_by_two

EACH = 8
HUNG = 3
MESSAGE_GROUPS = [f"g{number}" for number in range(24)]


async def test_a_member_that_is_killed_loses_nothing(
    program: Program, new_host: NewHost, host_of: NewHost, cluster: Cluster, operator: Operator, name: str
) -> None:
    """Of a group in order and of one that is not; it dies with a message of each in its listener. Another group has
    nothing to do with it."""
    fifo, normal, others = f"{name}-fifo", f"{name}-normal", f"{name}-others"
    await operator.create_topic(fifo, message_type=v2.FIFO)
    await operator.create_group(fifo, order=record_pb2.ORDER_FIFO)
    await operator.create_topic(normal)
    for group in (normal, others):
        await operator.create_group(group)
    doomed, client = Client(new_host(program), cluster, name), Client(host_of(program), cluster, name)
    dying = [doomed.begin("listen", topic=topic, group=topic, hangs=True) for topic in (fifo, normal)]
    await asyncio.gather(*(member.until(1, of="started") for member in dying))
    async with (
        client.listening(topic=fifo, group=fifo) as in_order,
        client.listening(topic=normal, group=normal) as unordered,
        client.listening(topic=normal, group=others) as apart,
    ):
        first = [each for group in MESSAGE_GROUPS for each in messages("ok -1", group=group)]
        await asyncio.gather(client.send(first, topic=fifo), client.send(messages(*["ok -1"] * 40), topic=normal))
        for topic in (fifo, normal):
            await eventually(lambda topic=topic: shared_by_two(operator, topic), 30)
        ordered = [
            message
            for number in range(EACH)
            for group in MESSAGE_GROUPS
            for message in messages(f"{'hang' if number == HUNG else 'ok'} {number}", group=group)
        ]
        plain = messages(*(f"{'hang' if number % 2 else 'ok'} {number}" for number in range(40)))
        await asyncio.gather(client.send(ordered, topic=fifo), client.send(plain, topic=normal))
        for member in dying:
            await eventually(lambda member=member: any("hang" in body for body in bodies(member.heard)), 20)
        doomed.host.kill()
        for topic, group in ((fifo, fifo), (normal, normal), (normal, others)):
            await eventually(lambda topic=topic, group=group: _all_settled(operator, group, topic), 40)
    plain += messages(*["ok -1"] * 40)
    assert Counter(bodies(apart.heard)) == Counter(bodies(plain))
    assert set(bodies(dying[1].heard + unordered.heard)) == set(bodies(plain))
    heard = sorted([*dying[0].heard, *in_order.heard], key=lambda result: result["at_ms"])
    for came in by_group(heard).values():
        numbers = [int(body.split()[1]) for body in came]
        assert numbers == sorted(numbers)  # what the killed one had not acknowledged comes once more
        assert set(numbers) == set(range(-1, EACH))


async def test_where_a_group_begins(client: Client, operator: Operator, name: str) -> None:
    """At the first message, the last, or a time."""
    await operator.create_topic(name)
    now = Timestamp()
    await client.send(messages("old"))
    await asyncio.sleep(0.05)  # so that the time lies between them
    now.FromNanoseconds(time.time_ns())
    await client.send(messages("new"))
    starts = {
        "first": admin_pb2.GroupSettings(start=record_pb2.START_FIRST),
        "last": admin_pb2.GroupSettings(start=record_pb2.START_LAST),
        "time": admin_pb2.GroupSettings(start=record_pb2.START_TIME, start_time=now),
    }
    wanted = {"first": ["new", "newest", "old"], "last": ["newest"], "time": ["new", "newest"]}
    listeners: dict[str, Run] = {}

    async def begin(start: str) -> None:
        group = f"{name}-{start}"
        request = admin_pb2.CreateGroupRequest(name=v2.Resource(name=group), settings=starts[start])
        await operator.ask_admin(admin_rpc.CREATE_GROUP, request)
        listeners[start] = client.begin("listen", group=group)
        if start != "first":
            # By its first receive on each broker it has a place there.
            await eventually(lambda: _has_begun(operator, group, name), 30, what=f"{start} has begun")

    await asyncio.gather(*map(begin, starts))
    await client.send(messages("newest"))
    for start, listener in listeners.items():
        await listener.until_heard(len(wanted[start]))
        await eventually(lambda start=start: _all_settled(operator, f"{name}-{start}", name))
        await listener.stop()
    assert {start: sorted(bodies(listener.heard)) for start, listener in listeners.items()} == wanted


async def test_a_running_group_is_set_back(client: Client, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    await operator.create_group(name)
    async with client.listening() as listener, client.producing() as producer:
        producer.tell(messages=messages("1", "2"))
        await listener.until_heard(2)
        await asyncio.sleep(0.05)  # so that the time lies between them
        between = Timestamp()
        between.FromNanoseconds(time.time_ns())
        producer.tell(messages=messages("3"))
        await listener.until_heard(3)
        await eventually(lambda: _all_settled(operator, name, name))

        async def set_back(expected: list[str], **to: Any) -> None:
            before = len(listener.heard)
            request = admin_pb2.ResetOffsetRequest(group=v2.Resource(name=name), topic=v2.Resource(name=name), **to)
            await operator.ask_admin(admin_rpc.RESET_OFFSET, request)
            await listener.until_heard(before + len(expected))
            await eventually(lambda: _all_settled(operator, name, name))
            assert sorted(bodies(listener.heard[before:])) == expected

        await set_back(["1", "2", "3"], first=True)
        await set_back(["3"], time=between)
        await set_back([], last=True)


async def test_members_that_subscribe_differently(
    host_of: NewHost, cluster: Cluster, operator: Operator, name: str
) -> None:
    """One in Python, one in Java: what the command and the metric say of them."""
    await operator.create_topic(name)
    await operator.create_group(name)

    def differing() -> dict[str, int]:
        """How many clients want what."""
        shown = json.loads(cluster.kourou("group", "show", name, "--json").stdout)["differing_subscriptions"]
        assert all(each["topic"] == name for each in shown)
        return {each["filter"]: len(each["clients"]) for each in shown}

    python, java = (Client(host_of(program), cluster, name) for program in (PYTHON, JAVA))
    async with python.listening(expression="a || b"), java.listening(expression="a"):
        await eventually(lambda: asyncio.to_thread(differing), 20, 0.5)
        assert differing() == {"a || b": 1, "a": 1}
        shown = await page(cluster.broker("broker-a"))
        assert shown("kourou_group_differing_subscriptions", consumer_group=name) == 1
        said = await asyncio.to_thread(cluster.kourou, "group", "show", name)
        assert "the members subscribe differently" in said.stderr


async def _has_begun(operator: Operator, group: str, topic: str) -> bool:
    begun = await operator.progress(group, topic)
    assert len(begun) == 8, sorted(begun)
    return True


async def _all_settled(operator: Operator, group: str, topic: str) -> bool:
    return await operator.lag(group, topic) == 0
