"""Full states of brokers, for the tests of the registry and the routes."""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.registry.v1 import registry_pb2
from kourou_service.listener import HostPort, endpoints_of


def topic_state(
    name: str, queues: int = 4, permission: v2.Permission = v2.READ_WRITE, type_: v2.MessageType = v2.NORMAL
) -> registry_pb2.TopicState:
    return registry_pb2.TopicState(
        topic=v2.Resource(name=name), type=type_, queues=queues, permission=permission, version=1
    )


def full_state(
    name: str = "broker-a",
    topics: dict[str, int] | None = None,
    *,
    broker_id: int = 0,
    identity: bytes | None = None,
    started_ms: int = 1,
    permission: v2.Permission = v2.READ_WRITE,
    listeners: tuple[str, ...] = ("local",),
    known_brokers: tuple[str, ...] = (),
) -> registry_pb2.FullState:
    """Listeners whose name ends in -tls speak TLS."""
    return registry_pb2.FullState(
        cluster="test",
        broker_name=name,
        broker_id=broker_id,
        identity=(name.encode() + bytes(16))[:16] if identity is None else identity,
        started_ms=started_ms,
        version="1",
        listeners=[
            registry_pb2.Listener(
                name=each, endpoints=endpoints_of([HostPort(f"{name}.{each}", 10911)]), tls=each.endswith("-tls")
            )
            for each in listeners
        ],
        permission=permission,
        topics=[topic_state(each, queues) for each, queues in (topics or {}).items()],
        known_brokers=known_brokers,
    )
