"""Routes: order, permission, listeners, versions."""

import random

from hypothesis import given
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.registry.v1 import registry_pb2
from kourou_namesrv.registry import Registry, TopicKey
from kourou_namesrv.routes import Routes, smaller
from kourou_service.listener import Way
from tests.unit.namesrv.states import full_state, topic_state

ORDERS = TopicKey("", "orders")
LOCAL = Way("local")
PERMISSIONS = (v2.NONE, v2.READ, v2.WRITE, v2.READ_WRITE)


@given(st.lists(st.tuples(st.from_regex(r"[a-c][0-9]", fullmatch=True), st.integers(1, 4)), unique_by=lambda x: x[0]))
def test_the_same_brokers_give_the_same_route_in_whatever_order_they_came(brokers: list[tuple[str, int]]):
    routes: list[object] = []
    for seed in range(3):
        random.Random(seed).shuffle(brokers)
        registry = Registry(120)
        for name, queues in brokers:
            registry.register(full_state(name, {"orders": queues}), seed)
        routes.append(Routes(registry, "local").route(ORDERS, LOCAL))
    assert routes[0] == routes[1] == routes[2]


def test_queues_are_complete_and_in_order():
    registry = Registry(120)
    for name in ("broker-b", "broker-a"):
        registry.register(full_state(name, {"orders": 2}), 0)
    registry.register(full_state("broker-a", {"orders": 2}, broker_id=1), 0)  # a follower takes no clients
    queues = Routes(registry, "local").route(ORDERS, LOCAL).queues
    assert [(queue.broker.name, queue.broker.id, queue.id) for queue in queues] == [
        ("broker-a", 0, 0),
        ("broker-a", 0, 1),
        ("broker-b", 0, 0),
        ("broker-b", 0, 1),
    ]
    first = queues[0]
    assert first.topic == v2.Resource(name="orders")
    assert first.permission == v2.READ_WRITE
    assert list(first.accept_message_types) == [v2.NORMAL]
    assert first.broker.endpoints.scheme == v2.DOMAIN_NAME
    assert first.broker.endpoints.addresses[0] == v2.Address(host="broker-a.local", port=10911)


def test_the_smaller_permission_holds():
    for a in PERMISSIONS:
        for b in PERMISSIONS:
            both = smaller(a, b)
            assert both == smaller(b, a)
            assert smaller(a, v2.READ_WRITE) == a
            assert smaller(both, a) == both
    assert smaller(v2.READ, v2.WRITE) == v2.NONE
    registry = Registry(120)
    session = registry.register(full_state(topics={"orders": 1}, permission=v2.READ), 0)
    routes = Routes(registry, "local")
    assert routes.route(ORDERS, LOCAL).queues[0].permission == v2.READ
    registry.change(session, registry_pb2.Change(changed_topics=[topic_state("orders", 1, v2.WRITE)]), 0)
    assert routes.route(ORDERS, LOCAL).queues[0].permission == v2.NONE


def test_addresses_are_of_the_listener_or_the_fallback():
    registry = Registry(120)
    registry.register(full_state("broker-a", {"orders": 1}, listeners=("internal", "public")), 0)
    registry.register(full_state("broker-b", {"orders": 1}, listeners=("internal",)), 0)
    routes = Routes(registry, "internal")

    def hosts(listener: str) -> list[str]:
        queues = routes.route(ORDERS, Way(listener)).queues
        return [queue.broker.endpoints.addresses[0].host for queue in queues]

    assert hosts("internal") == ["broker-a.internal", "broker-b.internal"]
    assert hosts("public") == ["broker-a.public", "broker-b.internal"]
    assert hosts("unheard-of") == hosts("internal")


def test_who_comes_over_tls_is_never_sent_to_plaintext_or_the_other_way_round():
    registry = Registry(120)
    registry.register(full_state("broker-a", {"orders": 1}, listeners=("local", "local-tls")), 0)
    registry.register(full_state("broker-b", {"orders": 1}, listeners=("local", "other-tls")), 0)
    registry.register(full_state("broker-c", {"orders": 1, "plain": 1}, listeners=("local",)), 0)
    registry.register(full_state("broker-d", {"orders": 1, "safe": 1}, listeners=("local-tls",)), 0)
    routes = Routes(registry, "local")

    def hosts(way: Way, topic: str = "orders") -> list[str]:
        queues = routes.route(TopicKey("", topic), way).queues
        return [queue.broker.endpoints.addresses[0].host for queue in queues]

    assert hosts(LOCAL) == ["broker-a.local", "broker-b.local", "broker-c.local"]
    assert hosts(Way("local-tls", tls=True)) == ["broker-a.local-tls", "broker-b.other-tls", "broker-d.local-tls"]
    # The same name with the other kind: what fits the caller counts.
    assert hosts(Way("local-tls")) == hosts(LOCAL)
    assert hosts(Way("local", tls=True)) == hosts(Way("local-tls", tls=True))
    assert hosts(LOCAL, "safe") == hosts(Way("local-tls", tls=True), "plain") == []
    assert routes.holds(TopicKey("", "safe"))
    assert not routes.holds(TopicKey("", "nobody-has-it"))
    pairs = routes.leader_endpoints(ORDERS, LOCAL, Way("local-tls", tls=True))
    assert [(reached.addresses[0].host, seen.addresses[0].host) for reached, seen in pairs] == [
        ("broker-a.local", "broker-a.local-tls"),
        ("broker-b.local", "broker-b.other-tls"),
    ]


def test_versions_tell_routes_apart():
    registry = Registry(120)
    routes = Routes(registry, "local")
    versions = [routes.route(ORDERS, LOCAL).version]
    session = registry.register(full_state(topics={"orders": 1}), 0)
    versions.append(routes.route(ORDERS, LOCAL).version)
    registry.change(session, registry_pb2.Change(permission=v2.READ), 0)
    versions.append(routes.route(ORDERS, LOCAL).version)
    registry.change(session, registry_pb2.Change(changed_topics=[topic_state("other")]), 0)
    assert routes.route(ORDERS, LOCAL).version == versions[-1]
    assert len(set(versions)) == 3
    assert 0 not in versions
    registry.goodbye(session)
    assert routes.route(ORDERS, LOCAL).version == versions[0]
