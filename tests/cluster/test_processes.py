"""Each service as a process: wrong settings, taken ports, Ctrl-C, garbage on its ports, health and reflection."""

import asyncio
import random
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from kourou import AsyncProducer, AsyncPushConsumer, AsyncSimpleConsumer, Message, ReceivedMessage
from tests.cluster.cluster import Cluster, Dev
from tests.cluster.operator_client import Operator
from tests.cluster.process import BIN, Process

SERVICES = {
    "namesrv": (["namesrv"], "KOUROU_NAMESRV_", "scan_interval_s", "--listeners"),
    "broker": (["broker"], "KOUROU_BROKER_", "segment_bytes", "--listeners"),
    "admin": (["admin", "serve"], "KOUROU_ADMIN_", "max_calls", "--listen"),
    "dev": (["dev"], "KOUROU_DEV_", "broker_port", "--port"),
}


def outcome(folder: Path, *args: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """What a service that cannot run leaves: its exit code and what it wrote."""
    process = Process("service", [str(BIN / "kourou"), *args], folder, ready="", env=env)
    try:
        process.launch()
        return process.wait(20), process.output
    finally:
        process.dispose()


@pytest.mark.parametrize("service", SERVICES)
def test_wrong_settings_stop_a_service_with_their_name(service: str, tmp_path: Path) -> None:
    command, prefix, number, _ = SERVICES[service]
    flag = f"--{number.replace('_', '-')}"
    cases: list[tuple[list[str], dict[str, str], str]] = [
        (["--no-such-setting", "1"], {}, "--no-such-setting"),
        ([flag, "many"], {}, number),
        ([], {f"{prefix}NO_SUCH_SETTING": "1"}, f"{prefix}NO_SUCH_SETTING"),
    ]
    if service == "broker":  # read by the same code for all
        unknown, malformed = tmp_path / "unknown.toml", tmp_path / "malformed.toml"
        unknown.write_text("no_such_setting = 1\n")
        malformed.write_text(f'{number} = "many"\n')
        cases += [
            ([], {f"{prefix}{number.upper()}": "many"}, number),
            (["--config", str(unknown)], {}, "no_such_setting"),
            (["--config", str(malformed)], {}, number),
            (["--config", str(tmp_path / "none.toml")], {}, "config"),
        ]
    for args, environment, named in cases:
        code, output = outcome(tmp_path, *command, *args, env=environment)
        assert code == 2, f"{args} {environment}: {code} {output}"
        assert len(output.splitlines()) == 1, output
        assert named in output or named in output.replace("-", "_"), f"{args} {environment}: {output}"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("service", SERVICES)
def test_a_taken_port_is_one_line(service: str, tmp_path: Path) -> None:
    command, _, _, flag = SERVICES[service]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        value = address.rpartition(":")[2] if service == "dev" else address
        code, output = outcome(tmp_path, *command, flag, value)
    assert code == 1, output
    assert len(output.splitlines()) == 1, output
    assert address in output


async def test_ctrl_c_with_open_polls_and_streams(new_cluster: Callable[..., Cluster]) -> None:
    """Every service stops cleanly within seconds, whoever is connected; what was sent is there afterwards."""
    cluster = new_cluster(brokers=1)
    heard: list[bytes] = []

    async def listen(message: ReceivedMessage) -> None:
        heard.append(message.body)

    async with AsyncExitStack() as stack:
        operator = await stack.enter_async_context(Operator(cluster))
        for topic in ("quiet", "busy"):
            await operator.create_topic(topic)
        for group in ("push", "simple"):
            await operator.create_group(group)
        await stack.enter_async_context(AsyncPushConsumer("push", {"busy": "*"}, listen, cluster.namesrv))
        simple = await stack.enter_async_context(AsyncSimpleConsumer("simple", {"quiet": "*"}, cluster.namesrv))
        producer = await stack.enter_async_context(AsyncProducer(cluster.namesrv, watch_routes=True))
        await producer.send(Message("busy", b"x"))
        polling = asyncio.create_task(simple.receive(wait_s=20))
        async with grpc.aio.insecure_channel(cluster.brokers[0].address) as channel:
            watch = _health(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            for node in (cluster.brokers[0], cluster.admin, *cluster.namesrvs):
                begin_s = time.monotonic()
                assert await asyncio.to_thread(node.end, signal.SIGINT) == 0, node.output
                assert time.monotonic() - begin_s < 8, node.name
            watch.cancel()
        polling.cancel()
        await asyncio.wait([polling])
    for node in cluster.nodes:
        await asyncio.to_thread(node.start)
    await asyncio.to_thread(cluster.wait_until_registered, cluster.brokers[0])
    async with AsyncSimpleConsumer("simple", {"busy": "*"}, cluster.namesrv) as simple:
        [message] = await simple.receive(wait_s=10)
        assert message.body == b"x"


def test_ctrl_c_ends_the_local_cluster(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev()
    begin_s = time.monotonic()
    assert dev.node.end(signal.SIGINT) == 0
    assert time.monotonic() - begin_s < 8
    dev.node.start()
    assert dev.node.end(signal.SIGTERM) == 0


async def test_garbage_on_every_port_does_no_harm(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    rng = random.Random(name)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    garbage = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        rng.randbytes(100_000),
        preface + rng.randbytes(10_000),
        preface + bytes.fromhex("000000040000000000") + b"\x00" * 5000,
        b"\x16\x03\x01" + rng.randbytes(500),  # as TLS begins
        b"",
    ]
    addresses = [*(node.address for node in cluster.nodes), *(node.for_brokers for node in cluster.namesrvs)]
    for address in addresses:
        host, _, port = address.rpartition(":")
        for data in garbage:
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                try:
                    connection.sendall(data)
                except OSError:
                    continue  # it has closed the connection already
    assert all(node.running for node in cluster.nodes)
    async with AsyncProducer(cluster.namesrv) as producer:
        # As many as there are queues: each gets one.
        results = [await producer.send(Message(name, b"x")) for _ in range(8)]
    assert {result.broker for result in results} == {"broker-a", "broker-b"}
    # And well-formed calls with malformed requests are answered, on each method that there is.
    for address in addresses:
        async with grpc.aio.insecure_channel(address) as channel:
            for method in await asyncio.to_thread(_methods, address):
                outcome = await _malformed_call(channel, method, name)
                # Methods of a later release say so without reading the request.
                expected = (b"not supported", b"INVALID_ARGUMENT")
                assert any(text in outcome for text in expected), f"{method}: {outcome}"
    assert all(node.running for node in cluster.nodes)


async def _malformed_call(channel: grpc.aio.Channel, method: str, client_id: str) -> bytes:
    """The answer, or the status without one."""
    try:
        metadata = [("x-mq-client-id", client_id)]
        return await channel.unary_unary(method)(b"\xff\xff\xff\xff", timeout=5, metadata=metadata)
    except grpc.aio.AioRpcError as refused:
        return f"{refused.code().name} {refused.details()}".encode()


def _methods(address: str) -> list[str]:
    with grpc.insecure_channel(address) as channel:
        reflected = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(reflected)
        services = [pool.FindServiceByName(name) for name in reflected.get_services() if name.startswith(("ap", "ko"))]
        return [f"/{service.full_name}/{method.name}" for service in services for method in service.methods]


def test_reflection_and_health_of_every_service(cluster: Cluster) -> None:
    messaging, routing = "apache.rocketmq.v2.MessagingService", "kourou.routing.v1.Routing"
    registry, broker_admin, admin = (
        "kourou.registry.v1.Registry",
        "kourou.broker.v1.BrokerAdmin",
        "kourou.admin.v1.Admin",
    )
    expected = {
        **{node.address: {messaging, routing} for node in cluster.namesrvs},
        **{node.for_brokers: {registry, routing} for node in cluster.namesrvs},
        **{node.address: {messaging, broker_admin} for node in cluster.brokers},
        cluster.admin.address: {admin},
    }
    for address, services in expected.items():
        with grpc.insecure_channel(address) as channel:
            reflected = ProtoReflectionDescriptorDatabase(channel)
            assert services <= set(reflected.get_services()), address
            pool = DescriptorPool(reflected)
            for service in services:
                methods = pool.FindServiceByName(service).methods
                assert methods
                assert methods[0].input_type.fields is not None
                health = _health(channel).Check(health_pb2.HealthCheckRequest(service=service))
                assert health.status == health_pb2.HealthCheckResponse.SERVING, f"{address} {service}"
            overall = _health(channel).Check(health_pb2.HealthCheckRequest())
            assert overall.status == health_pb2.HealthCheckResponse.SERVING


def _health(channel: Any) -> Any:
    """The stub's methods have no types."""
    return health_pb2_grpc.HealthStub(channel)
