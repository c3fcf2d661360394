"""The official Python client, unchanged, pointed at our access point."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kourou import AsyncProducer, AsyncSimpleConsumer, Message
from tests.cluster.cluster import Cluster, Dev, System
from tests.cluster.operator_client import Operator
from tests.cluster.process import clean_environment
from tests.cluster.waiting import eventually

BODIES = [bytes(range(256)), "Zürich ✈".encode(), b"\x00", b"x" * 100_000]


class Official:
    """Runs its programs against a cluster; their log goes to a home folder of their own."""

    def __init__(self, system: System, home: Path) -> None:
        self._endpoints = system.namesrv.replace(",", ";")
        self._home = home
        self.log = home / "logs" / "rocketmq_python" / "rocketmq_client.log"

    async def run(self, program: str, **arguments: Any) -> Any:
        return await asyncio.to_thread(self._run, program, arguments)

    def _run(self, program: str, arguments: dict[str, Any]) -> Any:
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("programs.py"), program, self._endpoints],
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            env=clean_environment() | {"HOME": str(self._home)},
            timeout=90,
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}\n{self.log.read_text()[-3000:]}"
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def official(cluster: Cluster, tmp_path: Path) -> Official:
    return Official(cluster, tmp_path)


@pytest.mark.parametrize("asynchronously", [False, True])
async def test_messages_arrive_as_they_were_sent(
    official: Official, operator: Operator, name: str, asynchronously: bool
) -> None:
    await operator.create_topic(name)
    await operator.create_group(name)
    messages = [
        {"body": body.hex(), "tag": "t-1", "keys": f"key-{number}", "properties": {"ünï": "✓", "n": str(number)}}
        for number, body in enumerate(BODIES)
    ]
    ids = await official.run("send", topic=name, messages=messages, asynchronously=asynchronously)
    assert len(set(ids)) == len(BODIES)
    received = await official.run("receive", group=name, topic=name, count=len(BODIES))
    by_id = {message["id"]: message for message in received}
    assert len(received) == len(BODIES)
    for number, (sent_id, sent) in enumerate(zip(ids, messages, strict=True)):
        got = by_id[sent_id]
        assert got["body"] == sent["body"]
        assert (got["tag"], got["keys"], got["properties"]) == ("t-1", [f"key-{number}"], sent["properties"])
        assert (got["attempt"], got["corrupted"], got["topic"]) == (1, False, name)
    await eventually(lambda: _no_lag(operator, name))
    assert await official.run("receive", group=name, topic=name, count=1, patience=2) == []


async def test_both_libraries_read_each_other(
    cluster: Cluster, official: Official, operator: Operator, name: str
) -> None:
    await operator.create_topic(name)
    await operator.create_group(f"{name}-ours")
    await operator.create_group(f"{name}-theirs")
    async with AsyncProducer(cluster.namesrv) as producer:
        ours = await producer.send(Message(name, BODIES[0], tag="t", keys=["k"], properties={"p": "✓"}))
    [theirs] = await official.run("send", topic=name, messages=[{"body": BODIES[1].hex(), "tag": "t"}])
    async with AsyncSimpleConsumer(f"{name}-ours", {name: "t"}, cluster.namesrv) as consumer:
        got = {}
        while len(got) < 2:
            messages = await consumer.receive(wait_s=5)
            got |= {message.message_id: message.body for message in messages}
            await consumer.ack(messages)
    assert got == {ours.message_id: BODIES[0], theirs: BODIES[1]}
    received = await official.run("receive", group=f"{name}-theirs", topic=name, count=2)
    assert {message["id"]: bytes.fromhex(message["body"]) for message in received} == got
    [first] = [message for message in received if message["id"] == ours.message_id]
    assert (first["tag"], first["keys"], first["properties"], first["corrupted"]) == ("t", ["k"], {"p": "✓"}, False)


async def test_tag_filters(official: Official, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    for group in ("simple", "push"):
        await operator.create_group(f"{name}-{group}")
    messages = [{"body": tag.encode().hex(), "tag": tag} for tag in ("a", "b", "c")]
    await official.run("send", topic=name, messages=messages)
    wanted = {b"a".hex(), b"c".hex()}
    received = await official.run("receive", group=f"{name}-simple", topic=name, count=2, expression="a || c")
    assert {message["body"] for message in received} == wanted
    heard = await official.run("listen", group=f"{name}-push", topic=name, count=2, expression="a || c")
    assert {message["body"] for message in heard} == wanted


async def test_sql_filters(official: Official, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    for group in ("simple", "push", "none"):
        await operator.create_group(f"{name}-{group}")
    messages = [
        {"body": f"{price} in {region}".encode().hex(), "tag": "t", "properties": {"price": price, "region": region}}
        for price, region in (("9.5", "eu"), ("10.5", "eu"), ("11", "us"), ("none", "eu"))
    ]
    await official.run("send", topic=name, messages=messages)
    sql = {"kind": "SQL", "expression": "price > 10 AND region = 'eu' OR TAGS IN ('t') AND price BETWEEN 11 AND 12"}
    wanted = {b"10.5 in eu".hex(), b"11 in us".hex()}
    received = await official.run("receive", group=f"{name}-simple", topic=name, count=2, **sql)
    assert {message["body"] for message in received} == wanted
    assert {message["properties"]["region"] for message in received} == {"eu", "us"}
    heard = await official.run("listen", group=f"{name}-push", topic=name, count=2, **sql)
    assert {message["body"] for message in heard} == wanted
    place = "line 1, column 9 (position 8): the expression ends; expected: a property"
    result = await official.run("receive_failing", group=f"{name}-none", topic=name, expression="price > ")
    assert place in result
    result = await official.run("listen_failing", group=f"{name}-none", topic=name, expression="price > ")
    assert result != "has started", "it waits 10 s for settings; what the broker said is in its log"
    assert place in official.log.read_text()


async def test_the_invisible_time_is_changed(official: Official, operator: Operator, name: str) -> None:
    await operator.create_topic(name, brokers=["broker-a"])
    await operator.create_group(name)
    await official.run("send", topic=name, messages=[{"body": b"x".hex()}])
    result = await official.run("change_invisible_duration", group=name, topic=name)
    assert result["attempts"] == [1, 2]
    assert result["handles"] >= 2
    assert "INVALID_RECEIPT_HANDLE" in result["stale_ack"] or "40013" in result["stale_ack"], result["stale_ack"]
    await eventually(lambda: _no_lag(operator, name))


async def test_a_push_consumer_fails_and_gets_it_again(official: Official, operator: Operator, name: str) -> None:
    """The group's backoff here is 1 s, and the listener fails on the first attempt of one message."""
    await operator.create_topic(name)
    await operator.create_group(name, backoff_s=[1])
    await official.run("send", topic=name, messages=[{"body": body.hex()} for body in (b"good", b"bad")])
    heard = await official.run("listen", group=name, topic=name, count=3)
    attempts = [(bytes.fromhex(each["body"]), each["attempt"]) for each in heard]
    assert sorted(attempts) == [(b"bad", 1), (b"bad", 2), (b"good", 1)]
    [first, second] = [each for each in heard if bytes.fromhex(each["body"]) == b"bad"]
    assert first["id"] == second["id"]
    assert second["at_s"] - first["at_s"] > 0.9
    await eventually(lambda: _no_lag(operator, name))


async def test_dead_letters_are_received(official: Official, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    await operator.create_group(name, max_attempts=2, backoff_s=[1])
    [sent] = await official.run("send", topic=name, messages=[{"body": b"dead".hex(), "properties": {"p": "v"}}])
    heard = await official.run("listen", group=name, topic=name, count=2)
    assert [each["attempt"] for each in heard] == [1, 2]
    dead = await official.run("receive", group=name, topic=f"%DLQ%{name}", count=1)
    assert [(each["body"], each["properties"]) for each in dead] == [(b"dead".hex(), {"p": "v"})]
    assert dead[0]["topic"] == f"%DLQ%{name}"
    assert sent


async def test_what_cannot_be_sent_is_refused_clearly(official: Official, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    wrong = {
        ("fifo", name): "not match",
        ("delay", name): "not match",
        # The client keeps the server's sentence to itself.
        ("normal", f"{name}-unknown"): f"failed to fetch topic:{name}-unknown",
        ("large", name): "IllegalArgumentException",
    }
    results = await asyncio.gather(*(official.run("send_failing", topic=topic, kind=kind) for kind, topic in wrong))
    for (kind, topic), expected, result in zip(wrong, wrong.values(), results, strict=True):
        assert expected in result, f"{kind} to {topic}: {result}"


async def test_the_local_cluster(new_dev: Callable[..., Dev], tmp_path: Path) -> None:
    """As the README has it: one endpoint, and the group is made when it is first used."""
    dev = new_dev()
    await asyncio.to_thread(dev.kourou, "topic", "create", "hello")
    bodies = await Official(dev, tmp_path).run("transfer", group="readers", topic="hello", count=20)
    assert bodies == sorted(f"{number}".encode().hex() for number in range(20))


async def _no_lag(operator: Operator, name: str) -> bool:
    return await operator.lag(name, name) == 0
