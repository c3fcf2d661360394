"""What a broker may report: the limits of a registration and of the changes that follow it."""

import re
from collections.abc import Sequence

from kourou.limits import MAX_QUEUES
from kourou.names import namespace_fault, topic_fault
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.registry.v1 import registry_pb2
from kourou_service.listener import MAX_NAME_CHARS

IDENTITY_BYTES = 16
MAX_BROKERS = 4_096
MAX_TOPICS_A_BROKER = 100_000
MAX_LISTENERS = 16
MAX_ADDRESSES_A_LISTENER = 16
MAX_HOST_CHARS = 253  # of a domain name
MAX_VERSION_CHARS = 64

_PERMISSIONS = frozenset({v2.NONE, v2.READ, v2.WRITE, v2.READ_WRITE})
_TYPES = frozenset(v2.MessageType.values()) - {v2.MESSAGE_TYPE_UNSPECIFIED}

# \Z, not $: the latter lets a newline at the end pass.
_BROKER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}\Z")


class RegistrationRefused(Exception):
    """The broker must not serve under this registration; the message says why."""


def check_full_state(state: registry_pb2.FullState) -> None:
    """Raises RegistrationRefused for a report that no broker of ours would send."""
    if not _BROKER_NAME.match(state.broker_name):
        raise RegistrationRefused(f"{state.broker_name!r} is no broker name: letters, digits, _ . and -, at most 64")
    if not _BROKER_NAME.match(state.cluster):
        raise RegistrationRefused(f"{state.cluster!r} is no cluster name: letters, digits, _ . and -, at most 64")
    if len(state.version) > MAX_VERSION_CHARS:
        raise RegistrationRefused(f"the version has {len(state.version)} characters; {MAX_VERSION_CHARS} are allowed")
    if state.broker_id < 0:
        raise RegistrationRefused(f"the broker id {state.broker_id} is negative")
    if len(state.identity) != IDENTITY_BYTES:
        raise RegistrationRefused(f"the identity has {len(state.identity)} bytes, not {IDENTITY_BYTES}")
    if not 0 < len(state.listeners) <= MAX_LISTENERS:
        raise RegistrationRefused(f"{len(state.listeners)} listeners; 1 to {MAX_LISTENERS} are allowed")
    for listener in state.listeners:
        check_listener(listener)
    _check_permission("the broker", state.permission)
    _check_known_brokers(state.known_brokers)
    if len(state.topics) > MAX_TOPICS_A_BROKER:
        raise RegistrationRefused(f"a broker may hold at most {MAX_TOPICS_A_BROKER} topics")
    for topic in state.topics:
        check_topic(topic)


def check_change(change: registry_pb2.Change) -> None:
    """Raises RegistrationRefused, as check_full_state does."""
    for topic in change.changed_topics:
        check_topic(topic)
    if change.HasField("permission"):
        _check_permission("the broker", change.permission)
    _check_known_brokers(change.known_brokers)


def check_listener(listener: registry_pb2.Listener) -> None:
    if not 0 < len(listener.name) <= MAX_NAME_CHARS:
        raise RegistrationRefused(f"a listener's name has 1 to {MAX_NAME_CHARS} characters, not {len(listener.name)}")
    addresses = listener.endpoints.addresses
    if not 0 < len(addresses) <= MAX_ADDRESSES_A_LISTENER:
        raise RegistrationRefused(
            f"the listener {listener.name!r} has {len(addresses)} addresses;"
            f" 1 to {MAX_ADDRESSES_A_LISTENER} are allowed"
        )
    for address in addresses:
        if not 0 < len(address.host) <= MAX_HOST_CHARS:
            raise RegistrationRefused(
                f"a host of the listener {listener.name!r} has {len(address.host)} characters;"
                f" 1 to {MAX_HOST_CHARS} are allowed"
            )
        if not 0 < address.port < 65_536:
            raise RegistrationRefused(f"the listener {listener.name!r} has the port {address.port}")


def check_topic(topic: registry_pb2.TopicState) -> None:
    fault = topic_fault(topic.topic.name) or namespace_fault(topic.topic.resource_namespace)
    if fault:
        raise RegistrationRefused(fault)
    if not 0 < topic.queues <= MAX_QUEUES:
        raise RegistrationRefused(f"{topic.topic.name} has {topic.queues} queues; 1 to {MAX_QUEUES} are allowed")
    if topic.type not in _TYPES:
        raise RegistrationRefused(f"{topic.topic.name} has the unknown type {topic.type}")
    _check_permission(topic.topic.name, topic.permission)


def _check_permission(whose: str, permission: int) -> None:
    if permission not in _PERMISSIONS:
        raise RegistrationRefused(f"{whose} has the unknown permission {permission}")


def _check_known_brokers(names: Sequence[str]) -> None:
    if len(names) > MAX_BROKERS or any(not _BROKER_NAME.match(name) for name in names):
        raise RegistrationRefused("the list of known brokers is over its limits")
