"""The properties of a stored message, as conditions see them: all are text, or not there."""

from collections.abc import Callable, Mapping

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.google.protobuf import timestamp_pb2
from kourou_broker.operations.section_reader import StoredMessage

_System = definition_pb2.SystemProperties


class Properties:
    __slots__ = ("system", "user")

    def __init__(self, user: Mapping[str, str], system: _System) -> None:
        self.user = user
        self.system = system


Read = Callable[[Properties], str | None]


def is_system(name: str) -> bool:
    """Whether it is read from what RocketMQ keeps beside the user's properties."""
    return name in _SYSTEM


def reads(name: str) -> Read:
    """-> what reads the property of that name."""
    system = _SYSTEM.get(name)
    if system is not None:
        return lambda properties: system(properties.system)
    return lambda properties: properties.user.get(name)


def properties_reader(names: frozenset[str]) -> Callable[[StoredMessage], Properties]:
    """-> what parses of a message what these names need, and no more."""
    of_system = any(is_system(name) for name in names)
    of_user = any(not is_system(name) for name in names)

    def read(message: StoredMessage) -> Properties:
        return Properties(
            definition_pb2.Message.FromString(message.head).user_properties if of_user else {},
            _System.FromString(message.tail) if of_system else _NO_SYSTEM,
        )

    return read


def _ms(time: timestamp_pb2.Timestamp) -> str:
    return str(time.seconds * 1000 + time.nanos // 1_000_000)


_NO_SYSTEM = _System()
_SYSTEM: dict[str, Callable[[_System], str | None]] = {
    "TAGS": lambda system: system.tag or None,
    "KEYS": lambda system: " ".join(system.keys) or None,
    "UNIQ_KEY": lambda system: system.message_id,
    "BORN_TIMESTAMP": lambda system: _ms(system.born_timestamp) if system.HasField("born_timestamp") else None,
    "__BORNHOST": lambda system: system.born_host or None,
    "__SHARDINGKEY": lambda system: system.message_group or None,
    "TIMER_DELIVER_MS": lambda system: (
        _ms(system.delivery_timestamp) if system.HasField("delivery_timestamp") else None
    ),
    "TRACE_CONTEXT": lambda system: system.trace_context or None,
    "DLQ_ORIGIN_TOPIC": lambda system: system.dead_letter_queue.topic or None,
    "DLQ_ORIGIN_MESSAGE_ID": lambda system: system.dead_letter_queue.message_id or None,
}
"""RocketMQ's names, and what they say of a message."""
