import asyncio

import pytest

from kourou import AsyncProducer, ConnectionFailed, InvalidArgument, Message, TopicNotFound
from kourou.client import name_server_targets
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.route import Route, address_of, endpoints_of
from tests.unit.client.fake import Broker, Cluster, cluster, refuse, until


async def test_routes_are_pulled_again_and_again():
    async with cluster() as c, AsyncProducer(c.namesrv, route_interval_s=0.02) as producer:
        await producer.send(Message("t", b"x"))
        await until(lambda: len(c.name_servers[0].queries) >= 3)


async def test_a_new_broker_is_found_at_the_next_pull():
    async with cluster() as c, AsyncProducer(c.namesrv, route_interval_s=0.02) as producer:
        await producer.send(Message("t", b"x"))
        added = Broker("broker-b")
        await added.start()
        c.brokers.append(added)
        await until(lambda: added.settings)
        for _ in range(4):
            await producer.send(Message("t", b"x"))
        assert added.sends
        await added.stop()


async def test_the_route_is_pulled_at_once_after_an_error():
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        await producer.send(Message("t", b"x"))
        assert len(c.name_servers[0].queries) == 1
        await asyncio.sleep(0.11)
        c.brokers[0].send_scripts.append(refuse(v2.FORBIDDEN))
        await producer.send(Message("t", b"x"))
        await until(lambda: len(c.name_servers[0].queries) == 2)


async def test_callers_share_a_pull():
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        await asyncio.gather(*(producer.send(Message("t", b"x")) for _ in range(20)))
        assert len(c.name_servers[0].queries) == 1


async def test_a_watched_route_changes_at_once():
    async with cluster() as c, AsyncProducer(c.namesrv, watch_routes=True) as producer:
        await producer.send(Message("t", b"x"))
        await until(lambda: c.name_servers[0].watches >= 2)  # the first one brings the version
        added = Broker("broker-b")
        await added.start()
        c.brokers.append(added)
        c.version += 1
        await until(lambda: added.settings, timeout_s=1)
        await added.stop()


async def test_the_access_point_is_told_as_the_user_named_it():
    async with cluster() as c:
        port = c.namesrv[0].rpartition(":")[2]
        async with AsyncProducer(f"localhost:{port}") as producer:
            await producer.send(Message("t", b"x"))
        [query] = c.name_servers[0].queries
        assert query.endpoints.scheme == v2.DOMAIN_NAME
        assert address_of(query.endpoints) == f"localhost:{port}"


async def test_a_topic_that_is_deleted():
    async with cluster() as c, AsyncProducer(c.namesrv, route_interval_s=0.02) as producer:
        await producer.send(Message("t", b"x"))
        del c.topics["t"]
        await until(lambda: not producer._client.routes.addresses)
        with pytest.raises(TopicNotFound):
            await producer.send(Message("t", b"x"))


async def test_a_topic_is_unknown_only_if_every_name_server_says_so():
    async with cluster(name_servers=2) as c:
        cut_off = Cluster(brokers=[], topics={})
        c.name_servers[0].cluster = cut_off  # it hears no brokers any more
        for _ in range(24):  # each begins with one of the two, by chance
            async with AsyncProducer(c.namesrv) as producer:
                await producer.send(Message("t", b"x"))
        assert c.name_servers[0].queries
        async with AsyncProducer(c.namesrv) as producer:
            with pytest.raises(TopicNotFound):
                await producer.send(Message("nope", b"x"))


async def test_a_name_that_cannot_be_resolved():
    async with AsyncProducer("no-such-host.invalid:8081", send_timeout_s=0.2) as producer:
        with pytest.raises(ConnectionFailed):
            await producer.send(Message("t", b"x"))


def test_where_name_servers_are_named(monkeypatch):
    monkeypatch.delenv("KOUROU_NAMESRV", raising=False)
    assert name_server_targets(None) == ["127.0.0.1:8081"]
    monkeypatch.setenv("KOUROU_NAMESRV", "a:1; b:2")
    assert name_server_targets(None) == ["a:1", "b:2"]
    assert name_server_targets(["c:3", "d:4"]) == ["c:3", "d:4"]
    with pytest.raises(InvalidArgument):
        name_server_targets(" ")
    with pytest.raises(InvalidArgument, match="host:port"):
        AsyncProducer("no-port")


@pytest.mark.parametrize(
    ("address", "scheme"), [("127.0.0.1:8081", v2.IPv4), ("[::1]:8081", v2.IPv6), ("broker-a:10911", v2.DOMAIN_NAME)]
)
def test_addresses(address, scheme):
    endpoints = endpoints_of(address)
    assert endpoints.scheme == scheme
    assert address_of(endpoints) == address


def test_permissions():
    broker = v2.Broker(name="broker-a", endpoints=endpoints_of("127.0.0.1:1"))
    queues = [v2.MessageQueue(id=p, permission=p, broker=broker) for p in (v2.NONE, v2.READ, v2.WRITE, v2.READ_WRITE)]
    route = Route("t", queues)
    assert [queue.id for queue in route.readable] == [v2.READ, v2.READ_WRITE]
    assert [queue.id for queue in route.writable] == [v2.WRITE, v2.READ_WRITE]
    assert len(route.readable_brokers()) == 1
