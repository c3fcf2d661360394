"""FIFO and PRIORITY topics by official clients."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.log.v1 import record_pb2
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compat.official import PYTHON, Client, Told, bodies, messages
from tests.compat.test_failures import buried

EACH = 8


def by_group(heard: Sequence[Told]) -> dict[str, list[str]]:
    """The bodies of each message group, as they came."""
    came: dict[str, list[str]] = defaultdict(list)
    for result in heard:
        came[result["group"]] += bodies([result])
    return came


async def test_what_fails_holds_up_its_message_group_alone(client: Client, operator: Operator, name: str) -> None:
    await operator.create_topic(name, message_type=v2.FIFO)
    await operator.create_group(name, order=record_pb2.ORDER_FIFO, max_attempts=3)
    kinds = {("a", 2): "bad", ("b", 4): "dead"}
    sent = [
        message
        for number in range(EACH)
        for group in "abc"
        for message in messages(f"{kinds.get((group, number), 'good')} {number}", group=group)
    ]
    # Both clients try again by themselves; this one does not count that, so that what is bad once is bad for ever.
    bad = 3 if client.program is PYTHON else 2
    in_order = {
        "a": ["good 0", "good 1", *["bad 2"] * bad, *[f"good {number}" for number in range(3, EACH)]],
        "b": [*[f"good {number}" for number in range(4)], *["dead 4"] * 3, "good 5", "good 6", "good 7"],
        "c": [f"good {number}" for number in range(EACH)],
    }
    async with client.listening() as listener:
        await client.send(sent)
        await listener.until_heard(sum(map(len, in_order.values())))
        await eventually(lambda: _all_settled(operator, name), 20)
    assert by_group(listener.heard) == in_order
    assert await buried(operator, name) == (["bad 2", "dead 4"] if bad == 3 else ["dead 4"])


async def shared_by_two(operator: Operator, name: str) -> bool:
    """Whether the queues that the group has read have two owners."""
    owners = list((await operator.owners(name, name)).values())
    return "" not in owners and len(set(owners)) == 2


async def test_two_members_share_the_work(client: Client, operator: Operator, name: str) -> None:
    await operator.create_topic(name, message_type=v2.FIFO)
    await operator.create_group(name, order=record_pb2.ORDER_FIFO)
    groups = [f"g{number}" for number in range(24)]
    sent = [message for number in range(6) for group in groups for message in messages(f"{number}", group=group)]
    async with client.listening() as one, client.listening() as other, client.producing() as producer:
        producer.tell(messages=sent[: len(groups)])
        await eventually(lambda: len(one.heard) + len(other.heard) >= len(groups), 30)
        await eventually(lambda: shared_by_two(operator, name), 20)
        before = len(one.heard), len(other.heard)
        producer.tell(messages=sent[len(groups) :])
        await eventually(lambda: len(one.heard) + len(other.heard) >= len(sent), 30)
        await eventually(lambda: _all_settled(operator, name), 20)
    assert len(one.heard) > before[0]
    assert len(other.heard) > before[1]
    heard = sorted([*one.heard, *other.heard], key=lambda result: result["at_ms"])
    assert by_group(heard) == {group: ["0", "1", "2", "3", "4", "5"] for group in groups}


async def test_a_group_that_keeps_no_order_waits_for_nothing(client: Client, operator: Operator, name: str) -> None:
    """The topic's messages have an order, of which this group wants to know nothing."""
    await operator.create_topic(name, message_type=v2.FIFO)
    await operator.create_group(name, order=record_pb2.ORDER_CONCURRENT, backoff_s=[20])
    async with client.listening() as listener:
        await client.send(messages("dead 0", "good 1", "good 2", "good 3", group="g"))
        heard = await listener.until_heard(4, timeout_s=19)
        assert sorted(bodies(heard)) == ["dead 0", "good 1", "good 2", "good 3"]
        assert {each["attempt"] for each in heard} == {1}


async def test_higher_priorities_come_first(client: Client, operator: Operator, name: str) -> None:
    await operator.create_topic(name, 3, message_type=v2.PRIORITY, brokers=["broker-a"])
    for group in ("simple", "push"):
        await operator.create_group(f"{name}-{group}")
    await client.send([made for level in (0, 2, 1, 9, 1, 0) for made in messages(f"p{level}", priority=level)])

    async def heard() -> list[Told]:
        async with client.listening(group=f"{name}-push", alone=True) as listener:
            return await listener.until_heard(6)

    for came in await asyncio.gather(client.receive(6, group=f"{name}-simple"), heard()):
        assert bodies(came) == ["p2", "p9", "p1", "p1", "p0", "p0"]
        assert [each["priority"] for each in came] == [2, 9, 1, 1, 0, 0]


async def _all_settled(operator: Operator, name: str) -> bool:
    return await operator.lag(name, name) == 0
