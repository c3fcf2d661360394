"""The certificate of a service: the user's files and their changes, and what it makes itself."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.kourou.routing.v1 import routing_pb2, routing_rpc
from kourou_namesrv.service import NameServer
from kourou_namesrv.settings import NamesrvSettings
from kourou_service.listener import HostPort, Listener, endpoints_of
from kourou_service.process import UserError
from kourou_service.settings import SettingsError
from kourou_service.tls import certificates, self_made
from kourou_service.tls.certificates import Certificates
from kourou_service.tls.identity import Identity
from kourou_service.tls.self_made import Authority
from kourou_service.tls.settings import TlsSettings
from tests.certificates import Pem, ca_of, issue, leaf_of, shown_at, write_ca, write_pem
from tests.unit.namesrv.states import full_state

AUTHORITY = Authority.make()
LISTENER = Listener.parse("safe=tls://127.0.0.1:0/broker.example:8443")
TIMEOUT_S = 10
METRIC = "kourou_tls_certificate_expiry_timestamp_seconds"
HEADERS = [("x-mq-client-id", "a-client")]
secure_channel: Any = grpc.aio.secure_channel
insecure_channel: Any = grpc.aio.insecure_channel
channel_credentials: Callable[..., grpc.ChannelCredentials] = grpc.ssl_channel_credentials


@pytest.fixture
def pem(tmp_path: Path) -> Pem:
    return write_pem(tmp_path / "pem", issue(AUTHORITY))


def settings(**values: object) -> TlsSettings:
    return TlsSettings.model_validate(values)


def load(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.certificate)


def test_without_tls_listeners_nothing_is_made_or_read(tmp_path: Path):
    plain = Listener.parse("local=127.0.0.1:0")
    made = Certificates(settings(tls_certificate="/missing", tls_key="/missing"), [plain], tmp_path / "tls")
    assert made.credentials(plain) is None
    assert list(tmp_path.iterdir()) == []


async def test_a_self_made_certificate_names_every_host_and_says_that_it_is_for_development(tmp_path: Path):
    with structlog.testing.capture_logs() as logs:
        made = Certificates(settings(), [LISTENER, Listener.parse("v6=tls://[::]:0/[fe80::1]:1")], tmp_path / "tls")
    [warning] = logs
    assert (warning["log_level"], warning["ca"]) == ("warning", str(tmp_path / "tls" / "ca.pem"))
    assert "for development only" in warning["event"]
    [family] = await made.collect()
    assert [(family.name, *row[0]) for row in family.rows] == [(METRIC, "safe"), (METRIC, "v6")]
    authority = Authority.kept_in(tmp_path / "tls")
    leaf = load(authority.issue(["localhost", "127.0.0.1", "::1", "broker.example"], None))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "broker.example"]
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["127.0.0.1", "::1"]
    leaf.verify_directly_issued_by(authority.certificate)


def test_the_authority_is_made_once_in_a_folder_and_its_key_is_nobodys_business(tmp_path: Path):
    folder = tmp_path / "deep" / "tls"
    first = Authority.kept_in(folder)
    assert Authority.kept_in(folder).certificate == first.certificate
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["ca.key", "ca.pem"]


def test_an_authority_near_its_end_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(self_made, "LIFETIME", timedelta(days=59))
    old = Authority.kept_in(tmp_path)
    monkeypatch.undo()
    new = Authority.kept_in(tmp_path)
    assert new.certificate.not_valid_after_utc > old.certificate.not_valid_after_utc
    assert Authority.kept_in(tmp_path).certificate == new.certificate


@pytest.mark.parametrize("harm", ["text", "gone", "other"])
def test_a_broken_authority_is_told(tmp_path: Path, harm: str):
    Authority.kept_in(tmp_path)
    if harm == "text":
        (tmp_path / "ca.pem").write_text("no certificate")
    elif harm == "gone":
        (tmp_path / "ca.key").unlink()
    else:
        write_ca(tmp_path / "ca.pem", Authority.make())
    with pytest.raises(UserError, match="is broken; remove it"):
        Authority.kept_in(tmp_path)


def test_files_that_cannot_be_used_are_told_with_their_setting(tmp_path: Path, pem: Pem):
    def refusal(**values: object) -> str:
        both = {"tls_certificate": pem.certificate, "tls_key": pem.key}
        with pytest.raises(SettingsError) as told:
            Certificates(settings(**both | values), [LISTENER], None)
        return str(told.value)

    text, locked = tmp_path / "text", tmp_path / "locked"
    text.write_text("no PEM")
    key = ec.generate_private_key(ec.SECP256R1())
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    other = write_pem(tmp_path / "other", issue(AUTHORITY))
    missing = tmp_path / "missing"
    assert (
        refusal(tls_certificate=missing) == f"setting tls_certificate: cannot read {missing}: No such file or directory"
    )
    assert refusal(tls_key=missing) == f"setting tls_key: cannot read {missing}: No such file or directory"
    assert refusal(tls_client_ca=missing).startswith("setting tls_client_ca: cannot read")
    assert refusal(tls_certificate=text).startswith(f"setting tls_certificate: {text} is no PEM certificate")
    assert refusal(tls_key=text).startswith(f"setting tls_key: {text} is no PEM key without a password")
    assert refusal(tls_key=locked).startswith(f"setting tls_key: {locked} is no PEM key without a password")
    assert refusal(tls_key=other.key) == f"setting tls_key: {other.key} is not the key of {pem.certificate}"
    assert refusal(tls_client_ca=text).startswith(f"setting tls_client_ca: {text} has no PEM certificate")
    assert refusal(tls_key="").startswith("setting tls_key: tls_certificate and tls_key belong together")
    assert refusal(tls_certificate="").startswith(
        "setting tls_certificate: tls_certificate and tls_key belong together"
    )


@pytest.fixture(params=["queue", "aio"])
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    """Starts a NameServer with a plaintext and a TLS listener."""
    started: list[NameServer] = []

    async def start(**values: object) -> NameServer:
        own = {"engine": request.param, "readiness_patience_s": 0, "broker_listener": HostPort("127.0.0.1", 0)}
        listeners = "local=127.0.0.1:0,local-tls=tls://127.0.0.1:0"
        namesrv = NameServer(NamesrvSettings.model_validate(own | {"listeners": listeners} | values))
        started.append(namesrv)
        await namesrv.start()
        return namesrv

    yield start
    for namesrv in started:
        await namesrv.stop()


async def route(namesrv: NameServer, channel: Any, endpoints: v2.Endpoints | None = None, topic: str = "orders") -> Any:
    method = service_rpc.QUERY_ROUTE
    call = channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)
    request = service_pb2.QueryRouteRequest(topic=v2.Resource(name=topic), endpoints=endpoints)
    return await call(request, metadata=HEADERS, timeout=TIMEOUT_S)


def hosts(answer: Any) -> list[str]:
    return [queue.broker.endpoints.addresses[0].host for queue in answer.message_queues]


async def test_a_route_has_the_addresses_of_the_kind_the_client_came_by(serve: Callable[..., Any], tmp_path: Path):
    namesrv = await serve(tls_folder=tmp_path)
    namesrv.registry.register(full_state("a", {"orders": 1, "both": 1}, listeners=("local", "local-tls")), 0)
    namesrv.registry.register(full_state("b", {"orders": 1, "plain": 1}, listeners=("local",)), 0)
    plain_at, safe_at = (listener.bind for listener in namesrv.listeners)
    credentials = channel_credentials((tmp_path / "ca.pem").read_bytes())
    async with insecure_channel(str(plain_at)) as plain, secure_channel(str(safe_at), credentials) as safe:
        for endpoints in (None, endpoints_of([plain_at]), endpoints_of([HostPort("unheard.of", 1)])):
            assert hosts(await route(namesrv, plain, endpoints)) == ["a.local", "b.local"]
        # Also when the client names the plaintext access point.
        for endpoints in (
            None,
            endpoints_of([safe_at]),
            endpoints_of([HostPort("other", 1)]),
            endpoints_of([plain_at]),
        ):
            assert hosts(await route(namesrv, safe, endpoints)) == ["a.local-tls"]
        # A broker asks in plaintext for its clients that use TLS.
        assert hosts(await route(namesrv, plain, endpoints_of([HostPort("a.local-tls", 10911)]))) == ["a.local-tls"]
        refused = (await route(namesrv, safe, topic="plain")).status
        assert refused.code == v2.ILLEGAL_ACCESS_POINT
        assert "no broker of plain has a listener that does" in refused.message
        assert (await route(namesrv, safe, topic="unknown")).status.code == v2.TOPIC_NOT_FOUND
        method = routing_rpc.LIST_BROKERS
        call = safe.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)
        brokers = (await call(routing_pb2.ListBrokersRequest(), timeout=TIMEOUT_S)).brokers
        assert [(each.name, len(each.endpoints.addresses)) for each in brokers] == [("a", 1), ("b", 0)]


async def test_changed_files_are_used_without_a_restart_and_broken_ones_are_not(
    serve: Callable[..., Any], pem: Pem, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(certificates, "LOOK_INTERVAL_S", 0.02)
    namesrv = await serve(tls_certificate=pem.certificate, tls_key=pem.key)
    address = str(namesrv.listeners[1].bind)
    first = pem.certificate.read_bytes()
    calls = 0

    async def keep_calling(channel: Any) -> None:
        nonlocal calls
        while True:
            await route(namesrv, channel)
            calls += 1

    async def shown_becomes(wanted: str) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while await asyncio.to_thread(shown_at, address) != wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def expiry() -> float:
        families = {family.name: family for family in await namesrv.metrics().collect()}
        [(labels, value)] = families[METRIC].rows
        assert labels == ("local-tls",)
        assert isinstance(value, float)
        return value

    async with secure_channel(address, channel_credentials(ca_of(AUTHORITY))) as channel:
        traffic = asyncio.create_task(keep_calling(channel))
        before = await expiry()
        assert before == x509.load_pem_x509_certificate(first).not_valid_after_utc.timestamp()
        with structlog.testing.capture_logs() as logs:
            second = issue(Authority.make())
            pem.write(second)
            await shown_becomes(leaf_of(second))
            assert await expiry() == second.expires_s >= before
            pem.key.write_text("broken")
            async with asyncio.timeout(TIMEOUT_S):
                while not any(line["log_level"] == "error" for line in logs):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            [error] = [line for line in logs if line["log_level"] == "error"]
            assert f"setting tls_key: {pem.key} is no PEM key" in error["reason"]
            assert await asyncio.to_thread(shown_at, address) == leaf_of(second)
            pem.key.unlink()
            third = issue(AUTHORITY)
            pem.write(third)
            await shown_becomes(leaf_of(third))
        counted = calls
        async with asyncio.timeout(TIMEOUT_S):
            while calls == counted and not traffic.done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not traffic.done(), "the connection of before goes on"
        traffic.cancel()


async def test_clients_without_a_certificate_are_turned_away_where_one_is_asked_for(
    serve: Callable[..., Any], pem: Pem, tmp_path: Path
):
    clients = Authority.make()
    client_ca = write_ca(tmp_path / "clients.pem", clients)
    for own in ({"tls_certificate": pem.certificate, "tls_key": pem.key}, {"tls_folder": tmp_path / "tls"}):
        namesrv = await serve(**own, tls_client_ca=client_ca)
        ca = ca_of(AUTHORITY) if "tls_key" in own else (tmp_path / "tls" / "ca.pem").read_bytes()
        address = str(namesrv.listeners[1].bind)
        known = clients.issue(["a-client"], None)
        async with secure_channel(address, channel_credentials(ca, known.key, known.certificate)) as channel:
            assert (await route(namesrv, channel)).status.code == v2.TOPIC_NOT_FOUND
        async with secure_channel(address, channel_credentials(ca)) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as told:
                await route(namesrv, channel)
            assert told.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_python_s_own_tls_takes_the_self_made_certificate(serve: Callable[..., Any], tmp_path: Path):
    """It is stricter than gRPC's."""
    listeners = "local-tls=tls://127.0.0.1:0/127.0.0.1:0,public=tls://127.0.0.1:0/namesrv.example:8443"
    namesrv = await serve(tls_folder=tmp_path, listeners=listeners)
    bind = namesrv.listeners[1].bind
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["h2"])
    for name in ("localhost", "127.0.0.1", "::1", "namesrv.example"):
        _, writer = await asyncio.open_connection(bind.host, bind.port, ssl=context, server_hostname=name)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        writer.close()
