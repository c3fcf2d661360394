"""What the README leads a new user through, on a cluster and on `kourou dev`: the command, then the library."""

import asyncio
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kourou import (
    AsyncProducer,
    AsyncPushConsumer,
    AsyncSimpleConsumer,
    Message,
    Producer,
    PushConsumer,
    ReceivedMessage,
    SimpleConsumer,
    TopicNotFound,
)
from tests.cluster.cluster import Cluster, Dev, System
from tests.cluster.flights import digest, flights
from tests.cluster.waiting import eventually

FLIGHTS = 100_000
EMPTY_LINES = 7


@pytest.fixture(params=["cluster", "dev"])
def system(request: pytest.FixtureRequest) -> System:
    if request.param == "cluster":
        return request.getfixturevalue("cluster")
    new_dev: Callable[..., Dev] = request.getfixturevalue("new_dev")
    return new_dev()


def test_a_real_data_set_comes_out_byte_for_byte(cluster: Cluster, tmp_path: Path) -> None:
    _move_flights(cluster, tmp_path, FLIGHTS, group_is_made=False)


def test_and_the_same_with_the_local_cluster(new_dev: Callable[..., Dev], tmp_path: Path) -> None:
    """There, a group is made when it is first used."""
    _move_flights(new_dev(), tmp_path, 20_000, group_is_made=True)


def _move_flights(system: System, folder: Path, count: int, *, group_is_made: bool) -> None:
    lines = flights(count)
    assert len(lines) == count
    source, received = folder / "flights.csv", folder / "received.csv"
    # Empty lines among them, and a last line without its newline.
    source.write_bytes(b"\n".join(lines[:10] + [b""] * EMPTY_LINES + lines[10:]))
    expected = digest(lines)

    assert "8 queues on" in system.kourou("topic", "create", "flights", "--type", "normal", "--queues", "8").stdout
    if not group_is_made:
        system.kourou("group", "create", "readers", "--max-attempts", "5", "--order", "concurrent")
    # Two terminals: both receive while the sender sends.
    with ThreadPoolExecutor() as terminals:
        receiving = terminals.submit(
            system.kourou, "receive", "flights", "--group", "readers", "--count", str(count), "--output", received
        )
        sent = system.kourou("send", "flights", "--lines", source)
        receiving.result()

    assert f"sent {count:,} messages" in sent.stderr
    assert f"left out {EMPTY_LINES} empty lines" in sent.stderr
    assert expected in sent.stderr
    assert f"received {count:,} messages" in receiving.result().stderr
    assert expected in receiving.result().stderr
    assert digest(received.read_bytes().splitlines()) == expected
    progress = json.loads(system.kourou("progress", "readers", "--json").stdout)
    assert sum(row["lag"] for row in progress) == 0
    assert sum(row["committed_offset"] for row in progress) == count


def test_a_line_from_a_pipe(cluster: Cluster, name: str) -> None:
    cluster.kourou("topic", "create", name)
    cluster.kourou("group", "create", name)
    sent = cluster.kourou("send", name, "--lines", "-", "--tag", "late", "--key", "k1", stdin="Zürich\n\n".encode())
    assert "sent 1 messages" in sent.stderr
    one = cluster.kourou("send", name, "and one more", "--property", "from=test")
    assert re.search(r"queue \d, offset \d: id \w+, offset id broker-[ab]@[0-9a-f]+\.0", one.stdout)
    received = cluster.kourou("receive", name, "--group", name, "--idle-s", "2")
    assert sorted(received.stdout.splitlines()) == ["Zürich", "and one more"]


def test_unknown_topics_and_groups_are_named_with_their_command(system: System, name: str) -> None:
    sent = system.kourou("send", name, "x", code=1)
    assert "kourou topic create" in sent.stderr
    assert "Traceback" not in sent.stderr
    received = system.kourou("receive", name, "--group", name, "--count", "1", code=1)
    assert "kourou topic create" in received.stderr
    assert len(sent.stderr.splitlines()) == 1
    if isinstance(system, Cluster):
        system.kourou("topic", "create", name)
        unknown_group = system.kourou("receive", name, "--group", name, "--count", "1", code=1)
        assert "kourou group create" in unknown_group.stderr


def test_no_cluster_there(cluster: Cluster) -> None:
    nobody = "127.0.0.1:1"
    for args in (["send", "t", "x", "--namesrv", nobody], ["topic", "list", "--admin", nobody]):
        failed = cluster.kourou(*args, code=1)
        assert nobody in failed.stderr
        assert len(failed.stderr.splitlines()) == 1, failed.stderr


def test_the_blocking_library(system: System, name: str) -> None:
    system.kourou("topic", "create", name)
    system.kourou("group", "create", f"{name}-1")
    system.kourou("group", "create", f"{name}-2")
    bodies = {f"message {number}".encode() for number in range(40)}
    with Producer(system.namesrv, group="writers") as producer:
        results = producer.send_many([Message(name, body, tag="t", keys=["k"]) for body in sorted(bodies)])
        with pytest.raises(TopicNotFound, match="kourou topic create"):
            producer.send(Message("no-such-topic", b"x"))
    assert len({result.message_id for result in results}) == len(bodies)

    with SimpleConsumer(f"{name}-1", {name: "*"}, system.namesrv) as consumer:
        received = set[bytes]()
        while len(received) < len(bodies):
            messages = consumer.receive(wait_s=10)
            assert messages
            received.update(message.body for message in messages)
            consumer.ack(messages)
    assert received == bodies

    heard = set[bytes]()
    all_there = threading.Event()

    def listen(message: ReceivedMessage) -> None:
        heard.add(message.body)
        if heard == bodies:
            all_there.set()

    with PushConsumer(f"{name}-2", {name: "t"}, listen, system.namesrv):
        assert all_there.wait(20)


async def test_the_asyncio_library(system: System, name: str) -> None:
    for args in (("topic", "create", name), ("group", "create", f"{name}-1"), ("group", "create", f"{name}-2")):
        await asyncio.to_thread(system.kourou, *args)
    sent = {bytes([1 + number % 255]) * 100 + str(number).encode() for number in range(100)}
    async with AsyncProducer(system.namesrv) as producer:
        await asyncio.gather(*(producer.send(Message(name, body, properties={"p": "ä"})) for body in sent))

    async with AsyncSimpleConsumer(f"{name}-1", {name: "*"}, system.namesrv) as consumer:
        received = set[bytes]()
        while len(received) < len(sent):
            messages = await consumer.receive(wait_s=10)
            assert all(message.properties == {"p": "ä"} and message.attempt == 1 for message in messages)
            received.update(message.body for message in messages)
            await consumer.ack(messages)
    assert received == sent

    heard = set[bytes]()

    async def listen(message: ReceivedMessage) -> None:
        heard.add(message.body)

    async with AsyncPushConsumer(f"{name}-2", {name: "*"}, listen, system.namesrv):
        await eventually(lambda: heard == sent, 20)
