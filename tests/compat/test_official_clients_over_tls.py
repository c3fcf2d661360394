"""Official clients in their default form, which speaks TLS and believes any certificate."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kourou import AsyncProducer, AsyncSimpleConsumer, Message
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compat.official import GO, JAVA, Program
from tests.stubs.stub import BUILD_TIMEOUT_S

# The first test of a program builds it; where nothing is downloaded yet that takes its time.
pytestmark = pytest.mark.timeout(BUILD_TIMEOUT_S)

BODIES = [bytes(range(256)), "Zürich ✈".encode(), b"\x00", b"x" * 1_000_000]
MESSAGES = [
    {"body": body.hex(), "tag": "t-1", "keys": [f"key-{number}"], "properties": {"ünï": "✓", "n": str(number)}}
    for number, body in enumerate(BODIES)
]


@pytest.fixture(params=[JAVA, GO], ids=lambda program: program.name)
def program(request: pytest.FixtureRequest) -> Program:
    request.param.require()
    return request.param


async def test_messages_arrive_as_they_were_sent(
    program: Program, cluster: Cluster, operator: Operator, name: str, tmp_path: Path
) -> None:
    await operator.create_topic(name)
    await operator.create_group(name)

    async def run(command: str, **arguments: Any) -> list[dict[str, Any]]:
        arguments |= {"topic": name, "group": name}
        return await asyncio.to_thread(program.run, tmp_path, command, cluster.tls_namesrv, **arguments)

    sent = await run("send", messages=MESSAGES)
    received = {each["id"]: each for each in await run("receive", count=len(BODIES), patience=10)}
    assert len(received) == len(BODIES)
    for told, message in zip(sent, MESSAGES, strict=True):
        got = received[told["id"]]
        assert {field: got[field] for field in message} == message
        assert got["attempt"] == 1
    await eventually(lambda: _no_lag(operator, name))
    assert await run("receive", count=1, patience=2) == []


async def test_what_they_send_and_what_the_library_sends_is_the_same(
    program: Program, cluster: Cluster, operator: Operator, name: str, tmp_path: Path
) -> None:
    """One over TLS, the other in plaintext."""
    await operator.create_topic(name)
    for group in ("ours", "theirs"):
        await operator.create_group(f"{name}-{group}")
    tls = cluster.tls_namesrv
    async with AsyncProducer(cluster.namesrv) as producer:
        ours = await producer.send(Message(name, BODIES[0], tag="t", keys=["k"], properties={"p": "✓"}))
    messages = [{"body": BODIES[1].hex(), "tag": "t"}]
    [theirs] = await asyncio.to_thread(program.run, tmp_path, "send", tls, topic=name, messages=messages)
    wanted = {ours.message_id: BODIES[0], theirs["id"]: BODIES[1]}
    got: dict[str, bytes] = {}
    async with AsyncSimpleConsumer(f"{name}-ours", {name: "t"}, cluster.namesrv) as consumer:
        while len(got) < len(wanted):
            received = await consumer.receive(wait_s=5)
            got |= {message.message_id: message.body for message in received}
            await consumer.ack(received)
    assert got == wanted
    arguments = {"topic": name, "group": f"{name}-theirs", "count": 2, "patience": 10}
    seen = await asyncio.to_thread(program.run, tmp_path, "receive", tls, **arguments)
    assert {each["id"]: bytes.fromhex(each["body"]) for each in seen} == wanted


async def test_java_listens_over_tls(cluster: Cluster, operator: Operator, name: str, tmp_path: Path) -> None:
    """A push consumer: assignments are asked of the access point and of brokers."""
    JAVA.require()
    await operator.create_topic(name)
    await operator.create_group(name)
    async with AsyncProducer(cluster.namesrv) as producer:
        sent = await producer.send_many([Message(name, b"%d" % number) for number in range(40)])
    arguments = {"topic": name, "group": name, "count": len(sent)}
    heard = await asyncio.to_thread(JAVA.run, tmp_path, "listen", cluster.tls_namesrv, **arguments)
    assert {each["id"] for each in heard} == {each.message_id for each in sent}
    await eventually(lambda: _no_lag(operator, name))


async def test_java_without_tls_uses_the_plaintext_access_point(
    cluster: Cluster, operator: Operator, name: str, tmp_path: Path
) -> None:
    JAVA.require()
    await operator.create_topic(name)
    arguments = {"topic": name, "messages": MESSAGES, "ssl": False}
    sent = await asyncio.to_thread(JAVA.run, tmp_path, "send", cluster.namesrv, **arguments)
    assert len({each["id"] for each in sent}) == len(MESSAGES)


async def _no_lag(operator: Operator, name: str) -> bool:
    return await operator.lag(name, name) == 0
