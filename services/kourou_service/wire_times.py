"""Times and durations as requests give them."""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.google.protobuf.duration_pb2 import Duration
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp
from kourou_service.refusal import Refused


def milliseconds(value: Timestamp | Duration, code: definition_pb2.Code = definition_pb2.BAD_REQUEST) -> int:
    """Rounded down. Raises Refused with that code for what the library cannot read as a time or a duration."""
    try:
        return value.ToMilliseconds()
    except ValueError:
        fields = f"{value.seconds} s and {value.nanos} ns"
        raise Refused(code, f"a {value.DESCRIPTOR.name.lower()} of {fields} is out of range") from None
