"""An official client whose answer was lost sends again by itself, and the message is there once."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.cluster.cluster import Cluster, free_address
from tests.cluster.fixtures import run
from tests.cluster.operator_client import Operator
from tests.compat.conftest import NewHost
from tests.compat.losing import LosingProxy
from tests.compat.official import Client, Program, bodies, messages


class Losing(NamedTuple):
    cluster: Cluster
    proxy: LosingProxy
    access_point: str
    """Who comes by it is sent to the broker by way of the proxy."""


@pytest.fixture(scope="module")
def losing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Losing]:
    cluster = Cluster(tmp_path_factory.mktemp("losing"), namesrvs=1, brokers=1)
    (namesrv,), (broker,) = cluster.namesrvs, cluster.brokers
    target, access_point = free_address(), free_address()
    proxy = LosingProxy(target)
    namesrv.set("listeners", f"local={namesrv.address},losing={access_point}")
    broker.set("listeners", f"local={broker.address},losing={target}/{proxy.address}")
    for system in run(cluster):
        yield Losing(system, proxy, access_point)
    proxy.close()


async def test_what_was_sent_again_is_stored_once(
    program: Program, host_of: NewHost, losing: Losing, name: str
) -> None:
    cluster, proxy, access_point = losing
    client = Client(host_of(program), cluster, name)
    async with Operator(cluster) as operator:
        await operator.create_topic(name)
        await operator.create_group(name)
        async with (
            client.listening(tls=False) as listener,
            client.producing(endpoints=access_point, tls=False) as producer,
        ):
            await producer.answer("id", messages=messages("first"))
            proxy.losing = True
            producer.tell(messages=messages("second"))
            heard = await listener.until_heard(2)
            assert len(producer.of("id")) == 1, "it has no answer yet"
            proxy.cut()
            sent = await producer.until(2, of="id")
            assert {each["id"] for each in sent} == {each["id"] for each in heard}
            assert not producer.of("refused")
            await producer.answer("id", messages=messages("third"))
            await listener.until_heard(3)
        assert sorted(bodies(listener.heard)) == ["first", "second", "third"]
