"""Official clients over TLS: while certificates are renewed, and one that is told to use it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from kourou_service.tls.self_made import Authority
from tests.certificates import issue, leaf_of, shown_at, write_ca, write_pem
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compat.conftest import NewHost
from tests.compat.official import JAVA, PYTHON, Client, messages


async def test_java_goes_on_when_certificates_are_renewed(
    host_of: NewHost, new_cluster: Callable[..., Cluster], tmp_path: Path, name: str
) -> None:
    authority = Authority.make()
    write_ca(tmp_path / "ca.pem", authority)
    pem = write_pem(tmp_path / "pem", issue(authority))
    files = {"tls_certificate": pem.certificate, "tls_key": pem.key}
    cluster = await asyncio.to_thread(new_cluster, namesrvs=1, brokers=1, namesrv=files, broker=files)
    client = Client(host_of(JAVA), cluster, name)
    async with Operator(cluster) as operator:
        await operator.create_topic(name)
        await operator.create_group(name)
    async with client.listening() as listener, client.producing() as producer:
        producer.tell(messages=messages(*map(str, range(10))))
        await listener.until_heard(10)
        renewed = issue(authority)
        pem.write(renewed)
        for node in (*cluster.namesrvs, *cluster.brokers):
            await eventually(lambda node=node: _shows(node.tls_address, leaf_of(renewed)))
        producer.tell(messages=messages(*map(str, range(10, 20))))
        await listener.until_heard(20)
        # A new client has to take the new certificate.
        await client.send(messages("20"))
        await listener.until_heard(21)
        assert not producer.of("refused")
    assert len({each["id"] for each in listener.heard}) == 21


async def test_python_listens_over_tls(host_of: NewHost, cluster: Cluster, operator: Operator, name: str) -> None:
    """It believes the CA that its environment names; its consumers ask the access point and brokers."""
    client = Client(host_of(PYTHON), cluster, name)
    await operator.create_topic(name)
    await operator.create_group(name)
    async with client.listening(tls=True) as listener:
        sent = await client.send(messages(*map(str, range(20))), tls=True)
        heard = await listener.until_heard(20)
    assert {each["id"] for each in heard} == {each["id"] for each in sent}


async def _shows(address: str, wanted: str) -> bool:
    return await asyncio.to_thread(shown_at, address) == wanted
