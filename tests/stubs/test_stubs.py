"""The programs under clients/go, java, node and rust, built by their own tools, against real processes."""

import asyncio
import gzip
import subprocess
from collections.abc import Sequence

import pytest

from kourou import AsyncProducer, AsyncSimpleConsumer, Message, ReceivedMessage
from kourou.limits import MAX_BODY_BYTES
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.kourou.admin.v1 import admin_pb2, admin_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.ports import free_port
from tests.cluster.waiting import eventually
from tests.stubs.languages import LANGUAGES
from tests.stubs.stub import BUILD_TIMEOUT_S, COUNT, Line, Stub, build, by_id, receive_args

# The first test of a language builds it; where nothing is downloaded yet that takes its time.
pytestmark = pytest.mark.timeout(BUILD_TIMEOUT_S)


async def test_what_it_sends_is_received_as_it_was_sent(
    stub: Stub, cluster: Cluster, operator: Operator, name: str
) -> None:
    await asyncio.to_thread(stub.create, cluster, name)
    sent = await asyncio.to_thread(stub.send, cluster, name)
    received = await receive(cluster, name, len(sent))
    assert by_id([Line.of(message) for message in received]) == by_id(sent)
    assert len({line.id for line in sent}) == COUNT
    title = stub.language.title
    assert [(line.tag, line.keys, line.properties, line.body) for line in sent] == [
        (
            "greeting",
            (title, f"{title}-{number}"),
            (f"language={title}", f"number={number}"),
            f"Hello ✓ number {number} from {title}",
        )
        for number in range(COUNT)
    ]
    assert {message.broker for message in received} == {"broker-a", "broker-b"}


async def test_it_receives_what_others_sent_and_nothing_comes_twice(
    stub: Stub, cluster: Cluster, operator: Operator, name: str
) -> None:
    await asyncio.to_thread(stub.create, cluster, name)
    messages = [
        Message(name, "Zürich ✈ Cayenne".encode(), tag="départ", keys=["a", "ключ"], properties={"ünï": "✓", "b": ""}),
        Message(name, b"neither tag nor keys nor properties"),
        # The whole message is larger than gRPC's own limit.
        Message(name, b"x" * MAX_BODY_BYTES, tag="large"),
    ]
    async with AsyncProducer(cluster.namesrv) as producer:
        ids = [(await producer.send(message)).message_id for message in messages]
    await send_packed(operator, cluster.broker_addresses[0], name, "01PACKED", b"packed " * 1000)
    received = await asyncio.to_thread(stub.receive, cluster, name, name, len(messages) + 1)
    assert by_id(received) == by_id(
        [
            Line(ids[0], "départ", ("a", "ключ"), ("b=", "ünï=✓"), "Zürich ✈ Cayenne"),
            Line(ids[1], "", (), (), messages[1].body.decode()),
            Line(ids[2], "large", (), (), "x" * MAX_BODY_BYTES),
            Line("01PACKED", "", (), (), "packed " * 1000),
        ]
    )
    for progress in (await operator.progress(name, name)).values():
        assert (progress.lag, progress.inflight) == (0, 0)
    again = await asyncio.to_thread(stub.run, *receive_args(cluster, name, name, 1), "--idle-s", "1", code=1)
    assert again.stdout == ""
    assert "error: 0 of 1 messages came" in again.stderr


def test_every_language_receives_what_every_other_sent(cluster: Cluster, name: str) -> None:
    there = [language for language in LANGUAGES if language.missing() is None]
    if len(there) < 2:
        pytest.skip("fewer than two languages can be built here")
    stubs = [build(language) for language in there]
    stubs[0].create(cluster, name)
    for stub in stubs:
        group = f"{name}-{stub.language.name}"
        stub.run("create", "--admin", cluster.admin_address, "--topic", name, "--group", group)
    sent = [line for stub in stubs for line in stub.send(cluster, name)]
    for stub in stubs:
        received = stub.receive(cluster, name, f"{name}-{stub.language.name}", len(sent))
        assert by_id(received) == by_id(sent), stub.language.name


async def test_it_is_a_proper_client_while_it_waits(
    stub: Stub, cluster: Cluster, operator: Operator, name: str
) -> None:
    await asyncio.to_thread(stub.create, cluster, name)
    process = stub.start(*receive_args(cluster, name, name, 1))
    try:
        clients = await eventually(lambda: both_brokers_know(operator, name), timeout_s=20)
        assert len({client.client_id for client in clients}) == 1
        for client in clients:
            assert (client.type, client.user_agent.language) == (v2.SIMPLE_CONSUMER, stub.language.code)
            assert [entry.topic.name for entry in client.subscriptions] == [name]
        async with AsyncProducer(cluster.namesrv) as producer:
            await producer.send(Message(name, b"at last"))
        out, err = await asyncio.to_thread(process.communicate, timeout=20)
        assert (process.returncode, err) == (0, "")
        assert out.rstrip("\n").endswith("\tat last")
        # It said goodbye: nobody has to wait until it is missed.
        assert await members(operator, name) == []
    finally:
        end(process)


async def test_a_broker_that_takes_no_writes_any_more_is_passed_over(
    stub: Stub, cluster: Cluster, operator: Operator, name: str
) -> None:
    await asyncio.to_thread(stub.create, cluster, name)
    count = 1000
    process = stub.start("send", "--endpoints", cluster.namesrv, "--topic", name, "--count", str(count))
    try:
        assert process.stdout is not None
        first = await asyncio.to_thread(process.stdout.readline)
        await operator.set_permission("broker-a", v2.READ)
        was_sending = process.poll() is None
        out, err = await asyncio.to_thread(process.communicate, timeout=60)
        assert process.returncode == 0, err
        assert was_sending, "it was done before the permission was taken: let it send more"
        assert len((first + out).splitlines()) == count
    finally:
        await operator.set_permission("broker-a", v2.READ_WRITE)
        end(process)


@pytest.mark.parametrize(
    ("args", "refusal"),
    [
        (["send", "--topic", "nobody-made-it"], "TOPIC_NOT_FOUND (40402)"),
        (["receive", "--topic", "nobody-made-it"], "TOPIC_NOT_FOUND (40402)"),
        (["receive", "--topic", "there", "--group", "nobody-made-it"], "CONSUMER_GROUP_NOT_FOUND (40403)"),
        (["create", "--topic", "no such name"], "ILLEGAL_TOPIC (40002)"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_refusal_is_told_with_its_code(stub: Stub, cluster: Cluster, args: Sequence[str], refusal: str) -> None:
    stub.run("create", "--admin", cluster.admin_address, "--topic", "there", "--group", "there")
    refused = stub.run(*args, "--endpoints", cluster.namesrv, "--admin", cluster.admin_address, code=1)
    assert refusal in refused.stderr
    assert refused.stdout == ""


def test_an_access_point_that_is_down_is_passed_over(stub: Stub, cluster: Cluster, name: str) -> None:
    down = f"127.0.0.1:{free_port()}"
    stub.create(cluster, name)
    sent = stub.run("send", "--endpoints", f"{down},{cluster.namesrv}", "--topic", name, "--count", "1")
    assert len(sent.stdout.splitlines()) == 1
    for args in (["send", "--endpoints", down], ["create", "--admin", down]):
        failed = stub.run(*args, "--topic", name, code=1)
        assert "unavailable" in failed.stderr.lower()
        assert down in failed.stderr


def test_without_a_command_it_does_all_and_can_be_repeated(stub: Stub, cluster: Cluster, name: str) -> None:
    for _ in range(2):
        args = ["--endpoints", cluster.namesrv, "--admin", cluster.admin_address, "--topic", name, "--group", name]
        lines = stub.run(*args, "--count", "2").stdout.splitlines()
        assert len(lines) == 6  # the topic, the group, two messages sent, the same two received
        assert sorted(lines[2:4]) == sorted(lines[4:])


def test_a_wrong_command_line_is_told(stub: Stub) -> None:
    for args in (["burn"], ["send", "--endpoints", "here"], ["send", "--count", "many"]):
        assert stub.run(*args, code=2).stderr


async def receive(cluster: Cluster, name: str, count: int) -> list[ReceivedMessage]:
    received: list[ReceivedMessage] = []
    async with AsyncSimpleConsumer(name, {name: "*"}, cluster.namesrv) as consumer:
        while len(received) < count:
            messages = await consumer.receive(wait_s=1)
            received += messages
            if messages:
                await consumer.ack(messages)
    return received


async def send_packed(operator: Operator, broker: str, topic: str, message_id: str, body: bytes) -> None:
    """As some clients do with large bodies."""
    message = v2.Message(
        topic=v2.Resource(name=topic),
        body=gzip.compress(body),
        system_properties=v2.SystemProperties(
            message_id=message_id, message_type=v2.NORMAL, body_encoding=v2.Encoding.GZIP
        ),
    )
    await operator.ask(broker, service_rpc.SEND_MESSAGE, service_pb2.SendMessageRequest(messages=[message]))


async def members(operator: Operator, group: str) -> list[admin_pb2.BrokerClient]:
    request = admin_pb2.ListClientsRequest(group=v2.Resource(name=group))
    return list((await operator.ask_admin(admin_rpc.LIST_CLIENTS, request)).clients)


async def both_brokers_know(operator: Operator, group: str) -> list[broker_pb2.Client]:
    """The group's one member as each of them has it; nothing until both have."""
    clients = [entry.client for entry in await members(operator, group)]
    return clients if len(clients) == 2 else []


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
