"""Who may register, what changes and what is forgotten."""

import contextlib

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.registry.v1 import registry_pb2
from kourou_namesrv.registry import Registry, TopicKey, UnknownSession
from kourou_namesrv.reports import RegistrationRefused
from tests.unit.namesrv.states import full_state, topic_state

ORDERS = TopicKey("", "orders")
OTHER_IDENTITY = b"another identity"


def held_by(registry: Registry, topic: TopicKey = ORDERS) -> list[str]:
    return [broker.key.name for broker, _ in registry.holders(topic)]


@pytest.mark.parametrize(
    ("illegal", "reason"),
    [
        ({"name": ""}, "is no broker name"),
        ({"name": "a\nb"}, "is no broker name"),
        ({"broker_id": -1}, "negative"),
        ({"identity": b"short"}, "has 5 bytes"),
        ({"listeners": ()}, "0 listeners"),
        ({"topics": {"no good": 1}}, "character"),
        ({"topics": {"orders": 0}}, "0 queues"),
        ({"topics": {"orders": 5000}}, "5000 queues"),
        ({"listeners": ("x" * 33,)}, "not 33"),
        ({"listeners": ("",)}, "not 0"),
        ({"permission": 77}, "unknown permission 77"),
        ({"known_brokers": ("a b",)}, "known brokers"),
    ],
)
def test_illegal_reports_are_refused(illegal: dict[str, object], reason: str):
    registry = Registry(120)
    with pytest.raises(RegistrationRefused, match=reason):
        registry.register(full_state(**illegal), 0)  # type: ignore[arg-type]
    assert registry.brokers == []


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("cluster", "c" * 65, "is no cluster name"),
        ("version", "1" * 65, "65 characters"),
        ("listeners[0].endpoints.addresses[0].host", "h" * 254, "254 characters"),
        ("listeners[0].endpoints.addresses[0].port", 65_536, "the port 65536"),
        ("listeners[0].endpoints.addresses[0].port", 0, "the port 0"),
        ("topics[0].type", 99, "unknown type 99"),
        ("topics[0].permission", 0, "unknown permission 0"),
    ],
)
def test_fields_out_of_their_limits_are_refused(field: str, value: object, reason: str):
    state = full_state(topics={"orders": 1})
    owner, _, name = f"state.{field}".rpartition(".")
    setattr(eval(owner, {"state": state}), name, value)
    with pytest.raises(RegistrationRefused, match=reason):
        Registry(120).register(state, 0)


def test_a_listener_with_too_many_addresses_is_refused():
    state = full_state()
    addresses = state.listeners[0].endpoints.addresses
    addresses.extend([addresses[0]] * 16)
    with pytest.raises(RegistrationRefused, match="17 addresses"):
        Registry(120).register(state, 0)


@pytest.mark.parametrize(
    "change",
    [
        registry_pb2.Change(known_brokers=[f"b{number}" for number in range(4097)]),
        registry_pb2.Change(known_brokers=["a b"]),
        registry_pb2.Change(permission=77),  # type: ignore[arg-type]
    ],
)
def test_changes_keep_the_limits_of_a_full_state(change: registry_pb2.Change):
    registry = Registry(120)
    session = registry.register(full_state(known_brokers=("broker-a",)), 0)
    with pytest.raises(RegistrationRefused):
        registry.change(session, change, 1)
    assert registry.brokers[0].known_brokers == {"broker-a"}


def test_another_identity_waits_until_the_name_is_free():
    registry = Registry(120)
    session = registry.register(full_state(topics={"orders": 1}), 0)
    with pytest.raises(RegistrationRefused, match="is connected"):
        registry.register(full_state(identity=OTHER_IDENTITY), 5)
    registry.disconnected(session)
    with pytest.raises(RegistrationRefused, match="heard of 100 s ago"):
        registry.register(full_state(identity=OTHER_IDENTITY), 100)
    assert [broker.key.name for broker in registry.scan(121)] == ["broker-a"]
    registry.register(full_state(identity=OTHER_IDENTITY), 122)
    # Another id is another broker, a follower for example.
    registry.register(full_state(broker_id=1), 122)


def test_a_newer_start_replaces_and_an_older_one_is_refused():
    registry = Registry(120)
    old = registry.register(full_state(topics={"orders": 1, "gone": 1}, started_ms=1), 0)
    registry.register(full_state(topics={"orders": 2}, started_ms=2), 1)
    with pytest.raises(UnknownSession):
        registry.heartbeat(old, 2)
    assert registry.disconnected(old) is None
    assert registry.brokers[0].connected
    assert held_by(registry, TopicKey("", "gone")) == []
    with pytest.raises(RegistrationRefused, match="newer start"):
        registry.register(full_state(started_ms=1), 3)


def test_two_streams_of_one_process_live_side_by_side():
    registry = Registry(120)
    first = registry.register(full_state(), 0)
    second = registry.register(full_state(), 0)
    registry.heartbeat(first, 1)
    assert registry.disconnected(second) is None
    broker = registry.disconnected(first)
    assert broker is registry.brokers[0]


def test_hidden_from_writers_until_it_is_back():
    registry = Registry(120)
    broker = registry.disconnected(registry.register(full_state(), 0))
    assert broker is not None
    registry.hide_from_writers(broker)
    assert registry.brokers[0].hidden_from_writers
    registry.register(full_state(), 20)
    assert not registry.brokers[0].hidden_from_writers
    registry.hide_from_writers(broker)  # a late timer
    assert not registry.brokers[0].hidden_from_writers


def test_changes_and_who_is_told():
    registry = Registry(120)
    told: list[set[TopicKey]] = []
    registry.on_change(lambda topics: told.append(set(topics)))
    session = registry.register(full_state(topics={"orders": 1, "bills": 1}), 0)
    change = registry_pb2.Change(
        changed_topics=[topic_state("new", 2)], removed_topics=[v2.Resource(name="bills"), v2.Resource(name="unknown")]
    )
    registry.change(session, change, 1)
    assert held_by(registry, TopicKey("", "new")) == ["broker-a"]
    assert held_by(registry, TopicKey("", "bills")) == []
    registry.change(session, registry_pb2.Change(permission=v2.READ), 1)
    assert told[-1] == {ORDERS, TopicKey("", "new")}
    assert registry.brokers[0].permission == v2.READ
    with pytest.raises(RegistrationRefused):
        registry.change(session, registry_pb2.Change(changed_topics=[topic_state("orders", 0)]), 1)
    with pytest.raises(UnknownSession):
        registry.change(99, registry_pb2.Change(), 1)


def test_goodbye_and_eviction():
    registry = Registry(120)
    leaving = registry.register(full_state("broker-a", {"orders": 1}), 0)
    silent = registry.register(full_state("broker-b", {"orders": 1}), 0)
    assert held_by(registry) == ["broker-a", "broker-b"]
    registry.goodbye(leaving)
    assert held_by(registry) == ["broker-b"]
    assert registry.scan(120) == []
    registry.heartbeat(silent, 120)
    assert registry.scan(240) == []
    assert len(registry.scan(240.1)) == 1
    assert held_by(registry) == []
    with pytest.raises(UnknownSession):
        registry.heartbeat(silent, 241)


class RegistryMachine(RuleBasedStateMachine):
    """Whatever happens, who holds which topic agrees with what the brokers say, and sessions belong to live brokers."""

    names = st.sampled_from(["broker-a", "broker-b"])
    topics = st.dictionaries(st.sampled_from(["orders", "bills", "news"]), st.integers(1, 3))

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry(120)
        self.now_s = 0.0
        self.sessions = [0]

    @rule(name=names, topics=topics, started_ms=st.integers(1, 3), identity=st.sampled_from([b"a" * 16, b"b" * 16]))
    def register(self, name: str, topics: dict[str, int], started_ms: int, identity: bytes) -> None:
        state = full_state(name, topics, started_ms=started_ms, identity=identity)
        with contextlib.suppress(RegistrationRefused):
            self.sessions.append(self.registry.register(state, self.now_s))

    @rule(data=st.data(), topics=topics, removed=st.sampled_from(["orders", "bills", "news"]))
    def change(self, data: st.DataObject, topics: dict[str, int], removed: str) -> None:
        change = registry_pb2.Change(
            changed_topics=[topic_state(name, queues) for name, queues in topics.items()],
            removed_topics=[v2.Resource(name=removed)],
        )
        with contextlib.suppress(UnknownSession):
            self.registry.change(data.draw(st.sampled_from(self.sessions)), change, self.now_s)

    @rule(data=st.data(), passed_s=st.floats(0, 100))
    def disconnect_and_wait(self, data: st.DataObject, passed_s: float) -> None:
        broker = self.registry.disconnected(data.draw(st.sampled_from(self.sessions)))
        self.now_s += passed_s
        if broker is not None:
            self.registry.hide_from_writers(broker)
        self.registry.scan(self.now_s)

    @rule(data=st.data())
    def goodbye(self, data: st.DataObject) -> None:
        self.registry.goodbye(data.draw(st.sampled_from(self.sessions)))

    @invariant()
    def holders_are_what_the_brokers_say(self) -> None:
        for name in ("orders", "bills", "news"):
            topic = TopicKey("", name)
            said = [broker.key for broker in self.registry.brokers if topic in broker.topics]
            assert [broker.key for broker, _ in self.registry.holders(topic)] == said
            for broker, state in self.registry.holders(topic):
                assert broker.topics[topic] is state

    @invariant()
    def sessions_belong_to_live_brokers(self) -> None:
        live = {session for broker in self.registry.brokers for session in broker.sessions}
        assert live == {session for session in self.sessions if self.registry.is_live(session)}


TestRegistryMachine = RegistryMachine.TestCase
