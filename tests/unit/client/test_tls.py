"""Whether a client speaks TLS: the option, the environment, and what cannot be used."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from kourou import AsyncProducer, ConnectionFailed, InvalidArgument
from kourou.errors import error_of_rpc
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.routing.v1 import routing_pb2, routing_rpc
from kourou.tls import TLS_VARIABLE, credentials_of
from kourou.transport import GrpcTransport, RpcError
from kourou_namesrv.service import NameServer
from kourou_namesrv.settings import NamesrvSettings
from kourou_service.listener import HostPort
from kourou_service.tls.self_made import Authority
from tests.certificates import issue, write_ca, write_pem

TIMEOUT_S = 10.0


@pytest.fixture
async def namesrv(tmp_path: Path) -> AsyncIterator[NameServer]:
    """With one plaintext and one TLS listener; its CA is in tmp_path/ca.pem."""
    listeners = "local=127.0.0.1:0,local-tls=tls://127.0.0.1:0"
    own = {"broker_listener": HostPort("127.0.0.1", 0), "readiness_patience_s": 0, "tls_folder": tmp_path}
    namesrv = NameServer(NamesrvSettings.model_validate(own | {"listeners": listeners}))
    await namesrv.start()
    yield namesrv
    await namesrv.stop()


async def brokers_are_listed(address: str, transport: GrpcTransport) -> bool:
    request = routing_pb2.ListBrokersRequest()
    reply = await transport.channel(address).unary(routing_rpc.LIST_BROKERS, request, timeout_s=TIMEOUT_S)
    return reply.message.status.code == v2.OK


async def test_a_certificate_is_believed_when_its_ca_is(namesrv: NameServer, tmp_path: Path) -> None:
    plain, safe = (str(listener.bind) for listener in namesrv.listeners)
    stranger = write_ca(tmp_path / "stranger.pem", Authority.make())
    own: Any = grpc.ssl_channel_credentials((tmp_path / "ca.pem").read_bytes())
    for address, tls in ((plain, False), (safe, tmp_path / "ca.pem"), (safe, str(tmp_path / "ca.pem")), (safe, own)):
        transport = GrpcTransport(credentials_of(tls))
        assert await brokers_are_listed(address, transport)
        await transport.close()
    faults = [
        (plain, True, "it does not speak TLS"),
        (plain, own, "it does not speak TLS"),
        (safe, False, "it closed the connection; perhaps it speaks TLS"),
        (safe, True, "its certificate is not believed, self signed certificate in certificate chain"),
        (safe, stranger, "its certificate is not believed, self signed certificate in certificate chain"),
    ]
    for address, tls, reason in faults:
        transport = GrpcTransport(credentials_of(tls))
        with pytest.raises(RpcError, match="UNAVAILABLE") as told:
            await brokers_are_listed(address, transport)
        assert f"{address} cannot be reached: {reason}" in str(error_of_rpc(told.value, address))
        await transport.close()


async def test_a_name_is_checked_as_the_user_wrote_it(namesrv: NameServer, tmp_path: Path) -> None:
    """And not as the address that it leads to, for which no certificate may be made out."""
    authority = Authority.kept_in(tmp_path)
    pem = write_pem(tmp_path / "pem", issue(authority, "localhost"))
    own = {"broker_listener": HostPort("127.0.0.1", 0), "readiness_patience_s": 0, "listeners": "tls://127.0.0.1:0"}
    files = {"tls_certificate": pem.certificate, "tls_key": pem.key}
    named = NameServer(NamesrvSettings.model_validate(own | files))
    await named.start()
    port = named.listeners[0].bind.port
    try:
        async with AsyncProducer(f"localhost:{port}", tls=tmp_path / "ca.pem") as producer:
            assert await producer._client.name_servers.call(  # pyright: ignore[reportPrivateUsage]
                routing_rpc.LIST_BROKERS, lambda endpoints: routing_pb2.ListBrokersRequest(endpoints=endpoints)
            )
        async with AsyncProducer(f"127.0.0.1:{port}", tls=tmp_path / "ca.pem") as producer:
            with pytest.raises(ConnectionFailed, match="its certificate is made out for another name"):
                await producer._client.name_servers.call(  # pyright: ignore[reportPrivateUsage]
                    routing_rpc.LIST_BROKERS, lambda endpoints: routing_pb2.ListBrokersRequest(endpoints=endpoints)
                )
    finally:
        await named.stop()


def test_the_environment_decides_when_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = write_ca(tmp_path / "ca.pem", Authority.make())
    monkeypatch.delenv(TLS_VARIABLE, raising=False)
    assert credentials_of(None) is None
    for value in ("", "false", "0", "TRUE", "1", str(ca)):
        monkeypatch.setenv(TLS_VARIABLE, value)
        assert (credentials_of(None) is not None) == (value in ("TRUE", "1", str(ca))), value
        assert credentials_of(False) is None
        assert credentials_of(True) is not None


def test_what_cannot_be_used_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text"
    text.write_text("no certificate")
    with pytest.raises(InvalidArgument, match="missing: No such file"):
        AsyncProducer("127.0.0.1:1", tls=tmp_path / "missing")
    with pytest.raises(InvalidArgument, match="has no PEM certificate"):
        AsyncProducer("127.0.0.1:1", tls=text)
    monkeypatch.setenv(TLS_VARIABLE, str(text))
    with pytest.raises(InvalidArgument, match="has no PEM certificate"):
        AsyncProducer("127.0.0.1:1")
    with pytest.raises(InvalidArgument, match="give one of them"):
        AsyncProducer("127.0.0.1:1", tls=True, transport=GrpcTransport())
