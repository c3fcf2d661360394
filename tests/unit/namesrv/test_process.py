"""The NameServer as a process, asked with the official client's stubs."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from rocketmq.grpc_protocol import definition_pb2, service_pb2, service_pb2_grpc

FREE_PORTS = ("--listeners=local=127.0.0.1:0", "--broker-listener=127.0.0.1:0", "--metrics-listen=127.0.0.1:0")
HEADERS = (("x-mq-client-id", "a-client"),)


def start(*args: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "kourou_namesrv", "--log-format=json", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def address() -> Iterator[str]:
    process = start(*FREE_PORTS, "--readiness-patience-s=0")
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        yield json.loads(line)["clients"][0].partition("=")[2]
        process.terminate()
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "Traceback" not in err
    finally:
        process.kill()
        process.communicate()


def test_official_stubs_are_answered(address: str):
    topic: Any = definition_pb2.Resource(name="missing")  # type: ignore[attr-defined]
    ok: int = definition_pb2.Code.OK  # type: ignore[attr-defined]
    with grpc.insecure_channel(address) as channel:
        stub: Any = service_pb2_grpc.MessagingServiceStub(channel)
        requests: Any = service_pb2
        route = stub.QueryRoute(requests.QueryRouteRequest(topic=topic), metadata=HEADERS, timeout=10)
        assert "kourou topic create missing" in route.status.message
        assert stub.Heartbeat(requests.HeartbeatRequest(), metadata=HEADERS, timeout=10).status.code == ok
        settings: Any = definition_pb2.Settings()  # type: ignore[attr-defined]
        settings.publishing.topics.append(topic)
        command = requests.TelemetryCommand(settings=settings)
        (answer,) = stub.Telemetry(iter([command]), metadata=HEADERS, timeout=10)
        assert answer.status.code == ok
        assert answer.settings.publishing.topics[0].name == "missing"


def test_garbage_on_the_port_does_no_harm(address: str):
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"\x00garbage\r\n" * 1000)
    with grpc.insecure_channel(address) as channel:
        stub: Any = service_pb2_grpc.MessagingServiceStub(channel)
        requests: Any = service_pb2
        assert stub.Heartbeat(requests.HeartbeatRequest(), metadata=HEADERS, timeout=10).status.code


@pytest.mark.parametrize("setting", ["--listeners=local={}", "--broker-listener={}", "--metrics-listen={}"])
def test_a_port_that_is_taken_is_one_line(setting: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        args = [each for each in FREE_PORTS if each.partition("=")[0] != setting.partition("=")[0]]
        process = start(setting.format(where), *args)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.startswith("kourou namesrv: ")
    assert where in err
    assert err.count("\n") == 1


def test_an_unknown_setting_is_one_line():
    process = start("--scan-every=1")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "--scan-every" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (
            ["--tls-certificate=/no/such/file", "--tls-key=/no/such/key"],
            "setting tls_certificate: cannot read /no/such/file",
        ),
        (["--tls-certificate=/no/such/file"], "setting tls_key: tls_certificate and tls_key belong together"),
        (["--tls-client-ca=/no/such/ca"], "setting tls_client_ca: cannot read /no/such/ca"),
    ],
)
def test_a_certificate_that_is_not_there_ends_the_start(flags: list[str], reason: str):
    free = ("--listeners=local-tls=tls://127.0.0.1:0", *FREE_PORTS[1:])
    with start(*free, *flags) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert err.splitlines()[-1].startswith(f"kourou namesrv: {reason}")
    assert "Traceback" not in err
