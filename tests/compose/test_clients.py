"""Clients in containers and on the host, at once, with both libraries."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

from kourou import AsyncProducer, Message
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from tests.cluster.operator_client import Operator
from tests.compat.official import GO, JAVA, PYTHON, Client, Host, Program, bodies, messages
from tests.compose.stack import BROKERS, Stack
from tests.stubs.languages import GO as GO_STUB
from tests.stubs.stub import build, by_id

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
    # The log says whose calls these were; that all lines are JSON is looked at when the tests are done.
    [call, *_] = [line for line in stack.container("admin").log().splitlines() if "/CreateTopic" in line]
    told = json.loads(call)
    assert (told["level"], told["event"], told["code"]) == ("debug", "call", "OK")
    assert told["client_id"]
    assert told["request_id"]


async def test_clients_in_containers_and_on_the_host_at_once(
    stack: Stack, operator: Operator, name: str, tmp_path: Path
) -> None:
    """Each sends to the same topic, and each receives what all of them sent."""
    await operator.create_topic(name)
    senders = {"first": "127.0.0.1:8081", "second": "localhost:8082", "inside": "namesrv:8080", "official": ""}
    for sender in senders:
        await operator.create_group(f"{name}-{sender}")
    total = COUNT * len(senders)

    def arguments(sender: str) -> list[str]:
        return [name, f"{name}-{sender}", sender, str(COUNT), str(total)]

    async def by_official() -> Iterable[str]:
        return await _exchange(PYTHON, "official", stack, tmp_path, name, total)

    async def on_host(sender: str) -> Iterable[str]:
        env = {"KOUROU_NAMESRV": senders[sender]}
        return json.loads(await asyncio.to_thread(stack.run_on_host, EXCHANGE, *arguments(sender), env=env))

    async def inside() -> Iterable[str]:
        return json.loads(await asyncio.to_thread(stack.run_inside, EXCHANGE, *arguments("inside")))

    everything = sorted(f"{sender} {number}" for sender in senders for number in range(COUNT))
    received = await asyncio.gather(on_host("first"), on_host("second"), inside(), by_official())
    for sender, came in zip(("first", "second", "inside", "official"), received, strict=True):
        assert sorted(came) == everything, f"what came to {sender}"


async def test_clients_with_tls_in_containers_and_on_the_host_at_once(
    stack: Stack, operator: Operator, name: str, tmp_path: Path
) -> None:
    """As above; the official clients, which believe any certificate, for the languages whose tools are here."""
    await operator.create_topic(name)
    programs = [program for program in (JAVA, GO) if program.is_there()]
    ours = {
        "first": {"KOUROU_NAMESRV": "127.0.0.1:8443", "KOUROU_TLS": str(stack.ca)},
        "second": {"KOUROU_NAMESRV": "localhost:8444", "KOUROU_TLS": str(stack.ca)},
        "inside": {"KOUROU_NAMESRV": "namesrv:8442", "KOUROU_TLS": "/tls/ca.pem"},
    }
    senders = [*ours, *(program.name for program in programs)]
    for sender in senders:
        await operator.create_group(f"{name}-{sender}")
    total = COUNT * len(senders)

    async def by_ours(sender: str) -> Iterable[str]:
        run = stack.run_inside if sender == "inside" else stack.run_on_host
        arguments = [name, f"{name}-{sender}", sender, str(COUNT), str(total)]
        return json.loads(await asyncio.to_thread(run, EXCHANGE, *arguments, env=ours[sender]))

    async def by_official(program: Program) -> Iterable[str]:
        return await _exchange(program, program.name, stack, tmp_path, name, total)

    everything = sorted(f"{sender} {number}" for sender in senders for number in range(COUNT))
    received = await asyncio.gather(*map(by_ours, ours), *map(by_official, programs))
    for sender, came in zip(senders, received, strict=True):
        assert sorted(came) == everything, f"what came to {sender}"


def test_a_program_made_from_the_proto_files(stack: Stack, name: str) -> None:
    """Go's: a second build of it, beside the tests that run it, is harmless."""
    stub = build(GO_STUB)
    stub.create(stack, name)
    sent = stub.send(stack, name, COUNT)
    assert by_id(stub.receive(stack, name, name, COUNT)) == by_id(sent)


async def test_each_access_point_names_addresses_that_its_clients_reach(
    stack: Stack, operator: Operator, name: str
) -> None:
    await operator.create_topic(name, queues=1)
    for namesrv in stack.namesrv.split(","):
        assert _addresses(await operator.route(name, namesrv)) == set(stack.broker_addresses)
    listed = json.loads(await asyncio.to_thread(stack.kourou_inside, "route", name, "--json"))
    assert {queue["address"] for queue in listed} == {f"{broker}:10910" for broker in BROKERS}
    # Over TLS as well, in both networks; the command in a container finds the CA there.
    tls = ("--tls-ca", "/tls/ca.pem", "--namesrv", "namesrv:8442")
    assert "sent to" in await asyncio.to_thread(stack.kourou_inside, *tls, "send", name, "from inside")
    for access_point in stack.tls_namesrv.split(","):
        async with AsyncProducer(access_point, tls=stack.ca) as producer:
            route = await producer._client.routes.get(name)  # pyright: ignore[reportPrivateUsage]
            assert route.addresses == {"127.0.0.1:10921", "127.0.0.1:10922"}
            await producer.send(Message(name, b"from outside"))


async def _exchange(program: Program, sender: str, stack: Stack, home: Path, topic: str, total: int) -> list[str]:
    """What an official client receives after it has sent its own messages."""
    with Host(program, home / program.name) as host:
        client = Client(host, stack, topic)
        await client.send(messages(*(f"{sender} {number}" for number in range(COUNT))))
        return bodies(await client.receive(total, polls=30, group=f"{topic}-{sender}"))


def _addresses(route: Iterable[v2.MessageQueue]) -> set[str]:
    return {f"{address.host}:{address.port}" for queue in route for address in queue.broker.endpoints.addresses}
