"""TLS with real processes: the library, the command, and certificates that are renewed while messages flow."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kourou import AsyncProducer, AsyncPushConsumer, ConnectionFailed, Message, ReceivedMessage
from kourou.route import address_of
from kourou_service.tls.self_made import Authority
from tests.certificates import issue, leaf_of, shown_at, write_ca, write_pem
from tests.cluster.cluster import Cluster, Dev, System
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually

COUNT = 50


@pytest.fixture(params=["cluster", "dev"])
def system(request: pytest.FixtureRequest) -> System:
    if request.param == "cluster":
        return request.getfixturevalue("cluster")
    new_dev: Callable[..., Dev] = request.getfixturevalue("new_dev")
    return new_dev()


async def test_the_library_sends_and_receives_over_tls_alone(system: System, name: str) -> None:
    await asyncio.to_thread(system.kourou, "topic", "create", name)
    await asyncio.to_thread(system.kourou, "group", "create", name)
    heard: list[ReceivedMessage] = []
    bodies = {b"%d" % number for number in range(COUNT)} | {b"x" * (1 << 20)}
    async with (
        AsyncPushConsumer(name, {name: "*"}, heard.append, system.tls_namesrv, tls=system.ca),
        AsyncProducer(system.tls_namesrv, tls=system.ca) as producer,
    ):
        await producer.send_many([Message(name, body) for body in bodies])
        await eventually(lambda: len(heard) >= len(bodies), timeout_s=20)
        brokers = producer._client.routes.addresses  # pyright: ignore[reportPrivateUsage]
    assert {message.body for message in heard} == bodies
    assert brokers.isdisjoint(system.broker_addresses), "those are plaintext"
    for tls in (True, False):
        async with AsyncProducer(system.tls_namesrv, tls=tls) as stranger:
            with pytest.raises(ConnectionFailed):
                await stranger.send(Message(name, b"x"), timeout_s=1)


def test_the_command_over_tls(system: System, name: str) -> None:
    system.kourou("topic", "create", name)
    system.kourou("group", "create", name)
    tls = ("--namesrv", system.tls_namesrv, "--tls-ca", system.ca)
    assert "sent to" in system.kourou(*tls, "send", name, "first light").stdout
    received = system.kourou(*tls, "receive", name, "--group", name, "--count", "1").stdout
    assert received == "first light\n"
    if isinstance(system, Dev):
        assert f"{system.tls_namesrv} (self-made certificate; its CA is {system.ca})" in system.node.output
    refused = system.kourou("--tls-ca", "/missing", "send", name, "x", code=1).stderr
    assert "cannot read the CAs in /missing: No such file or directory" in refused
    both = system.kourou("--no-tls", "--tls-ca", system.ca, "send", name, "x", code=2).stderr
    assert "exclude each other" in both


def test_the_command_says_what_stands_in_the_way(cluster: Cluster, name: str) -> None:
    cluster.kourou("topic", "create", name)
    wrong = cluster.kourou("--tls", "--namesrv", cluster.tls_namesrv, "send", name, "x", code=1).stderr
    assert "its certificate is not believed" in wrong
    assert len(wrong.splitlines()) == 1, "gRPC keeps its own log to itself"


async def test_each_kind_of_client_is_told_its_own_addresses(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    plain = await operator.route(name, cluster.namesrvs[0].address)
    assert {address_of(queue.broker.endpoints) for queue in plain} == {node.address for node in cluster.brokers}
    async with AsyncProducer(cluster.tls_namesrv, tls=cluster.ca) as producer:
        route = await producer._client.routes.get(name)  # pyright: ignore[reportPrivateUsage]
    assert route.addresses == {node.tls_address for node in cluster.brokers}


async def test_certificates_are_renewed_while_messages_flow(
    new_cluster: Callable[..., Cluster], tmp_path: Path, name: str
) -> None:
    authority = Authority.make()
    ca, pem = write_ca(tmp_path / "ca.pem", authority), write_pem(tmp_path / "pem", issue(authority))
    files = {"tls_certificate": pem.certificate, "tls_key": pem.key}
    cluster = await asyncio.to_thread(new_cluster, namesrvs=1, brokers=1, namesrv=files, broker=files)
    await asyncio.to_thread(cluster.kourou, "topic", "create", name)
    nodes = [*cluster.namesrvs, *cluster.brokers]

    async def shown_becomes(wanted: str) -> None:
        for node in nodes:
            await eventually(lambda node=node: _shows(node.tls_address, wanted), timeout_s=10)

    async with AsyncProducer(cluster.tls_namesrv, tls=ca) as producer:
        sent = 0

        async def keep_sending() -> None:
            nonlocal sent
            while True:
                await producer.send(Message(name, b"x"))
                sent += 1

        traffic = asyncio.create_task(keep_sending())
        await eventually(lambda: sent > 10 or traffic.done())
        second = issue(authority)
        pem.write(second)
        await shown_becomes(leaf_of(second))
        pem.key.write_text("broken")
        for node in nodes:
            await asyncio.to_thread(node.wait_for_output, "the new TLS certificate cannot be used", 10)
            assert await _shows(node.tls_address, leaf_of(second))
        before = sent
        await eventually(lambda: sent > before + 10 or traffic.done())
        assert not traffic.done()
        traffic.cancel()
    # A new client, after the reload, is served by the new certificate.
    async with AsyncProducer(cluster.tls_namesrv, tls=ca) as producer:
        await producer.send(Message(name, b"y"))
    for node in nodes:
        errors = [line for line in map(json.loads, node.output.splitlines()) if line.get("level") == "error"]
        assert [f"setting tls_key: {pem.key} is no PEM key" in line["reason"] for line in errors] == [True], errors


async def _shows(address: str, wanted: str) -> bool:
    return await asyncio.to_thread(shown_at, address) == wanted
