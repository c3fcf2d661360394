"""Clients in containers and on the host, at once, with both libraries."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from tests.cluster.operator_client import Operator
from tests.compat.test_official_client import Official
from tests.compose.stack import BROKERS, Stack

EXCHANGE = Path(__file__).with_name("programs") / "exchange.py"
COUNT = 20


async def test_topics_and_groups_are_made_from_both_sides(stack: Stack, operator: Operator, name: str) -> None:
    """By the commands of the README."""
    inside, outside = f"{name}-inside", f"{name}-outside"
    out = await asyncio.to_thread(stack.kourou_inside, "topic", "create", inside)
    assert "on broker-a, broker-b" in out
    await asyncio.to_thread(stack.kourou, "topic", "create", outside)
    await asyncio.to_thread(stack.kourou_inside, "group", "create", outside, "--max-attempts", "5")
    await asyncio.to_thread(stack.kourou, "group", "create", inside)
    for topic in (inside, outside):
        await asyncio.to_thread(stack.kourou_inside, "send", topic, "from inside")
        await asyncio.to_thread(stack.kourou, "send", topic, "from outside")
    first = await asyncio.to_thread(stack.kourou, "receive", inside, "--group", inside, "--count", "2")
    second = await asyncio.to_thread(stack.kourou_inside, "receive", outside, "--group", outside, "--count", "2")
    assert sorted(first.stdout.splitlines()) == sorted(second.splitlines()) == ["from inside", "from outside"]
    listed = json.loads(await asyncio.to_thread(stack.kourou_inside, "topic", "list", "--json"))
    assert {inside, outside} <= {topic["name"] for topic in listed}


async def test_clients_in_containers_and_on_the_host_at_once(
    stack: Stack, operator: Operator, name: str, tmp_path: Path
) -> None:
    """Each sends to the same topic, and each receives what all of them sent."""
    await operator.create_topic(name)
    senders = {"first": "127.0.0.1:8081", "second": "localhost:8082", "inside": "namesrv:8080", "official": ""}
    for sender in senders:
        await operator.create_group(f"{name}-{sender}")
    total = COUNT * len(senders)
    official = Official(stack, tmp_path)

    def arguments(sender: str) -> list[str]:
        return [name, f"{name}-{sender}", sender, str(COUNT), str(total)]

    async def by_official() -> Iterable[str]:
        messages = [{"body": f"official {number}".encode().hex()} for number in range(COUNT)]
        await official.run("send", topic=name, messages=messages)
        received = await official.run("receive", group=f"{name}-official", topic=name, count=total, patience=30)
        return [bytes.fromhex(message["body"]).decode() for message in received]

    async def on_host(sender: str) -> Iterable[str]:
        namesrv = senders[sender]
        return json.loads(await asyncio.to_thread(stack.run_on_host, EXCHANGE, *arguments(sender), namesrv=namesrv))

    async def inside() -> Iterable[str]:
        return json.loads(await asyncio.to_thread(stack.run_inside, EXCHANGE, *arguments("inside")))

    everything = sorted(f"{sender} {number}" for sender in senders for number in range(COUNT))
    received = await asyncio.gather(on_host("first"), on_host("second"), inside(), by_official())
    for sender, bodies in zip(("first", "second", "inside", "official"), received, strict=True):
        assert sorted(bodies) == everything, f"what came to {sender}"


async def test_each_access_point_names_addresses_that_its_clients_reach(
    stack: Stack, operator: Operator, name: str
) -> None:
    await operator.create_topic(name, queues=1)
    for namesrv in stack.namesrv.split(","):
        assert _addresses(await operator.route(name, namesrv)) == set(stack.broker_addresses)
    listed = json.loads(await asyncio.to_thread(stack.kourou_inside, "route", name, "--json"))
    assert {queue["address"] for queue in listed} == {f"{broker}:10910" for broker in BROKERS}


def _addresses(route: Iterable[v2.MessageQueue]) -> set[str]:
    return {f"{address.host}:{address.port}" for queue in route for address in queue.broker.endpoints.addresses}
