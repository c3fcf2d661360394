"""Our apache.rocketmq.v2 against the descriptors inside the official Python client."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto
from rocketmq.grpc_protocol import definition_pb2 as official_definition
from rocketmq.grpc_protocol import service_pb2 as official_service

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2

# In the API as of July 2026, not yet in the Python client 5.1.2.
NEWER_DEFINITIONS = {
    ("apache.rocketmq.v2.Code", 40021, "INVALID_CLIENT_PROPERTIES"),
    ("apache.rocketmq.v2.Settings", 9, "client_properties"),
    ("apache.rocketmq.v2.Settings.ClientPropertiesEntry", True),
    ("apache.rocketmq.v2.Settings.ClientPropertiesEntry", 1, "key"),
    ("apache.rocketmq.v2.Settings.ClientPropertiesEntry", 2, "value"),
}
FILES = [
    pytest.param(definition_pb2.DESCRIPTOR, official_definition.DESCRIPTOR, NEWER_DEFINITIONS, id="definition"),
    pytest.param(service_pb2.DESCRIPTOR, official_service.DESCRIPTOR, set[Any](), id="service"),
]


def facts(file: FileDescriptorProto) -> set[tuple[Any, ...]]:
    """All that has to agree, down to each field and enum value."""
    return {
        ("package", file.package),
        ("syntax", file.syntax),
        *(fact for message in file.message_type for fact in message_facts(message, file.package)),
        *(fact for enum in file.enum_type for fact in enum_facts(enum, file.package)),
        *(
            ("method", service.name, m.name, m.input_type, m.output_type, m.client_streaming, m.server_streaming)
            for service in file.service
            for m in service.method
        ),
    }


def message_facts(message: DescriptorProto, scope: str) -> Iterator[tuple[Any, ...]]:
    path = f"{scope}.{message.name}"
    yield "message", path, message.options.map_entry
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
        kind = (field.type, field.type_name, field.label, oneof, field.proto3_optional, field.options.packed)
        yield "field", path, field.number, field.name, *kind
    for nested in message.nested_type:
        yield from message_facts(nested, path)
    for enum in message.enum_type:
        yield from enum_facts(enum, path)


def enum_facts(enum: EnumDescriptorProto, scope: str) -> Iterator[tuple[Any, ...]]:
    yield "enum", f"{scope}.{enum.name}", enum.options.allow_alias
    for value in enum.value:
        yield "value", f"{scope}.{enum.name}", value.number, value.name


def proto_of(descriptor: Any) -> FileDescriptorProto:
    proto = FileDescriptorProto()
    descriptor.CopyToProto(proto)
    return proto


@pytest.mark.parametrize(("ours", "official", "newer"), FILES)
def test_every_name_and_number_agrees(ours: Any, official: Any, newer: set[Any]) -> None:
    mine, theirs = facts(proto_of(ours)), facts(proto_of(official))
    assert len(theirs) > 80
    assert sorted(theirs - mine, key=repr) == []
    assert {fact[1:4] for fact in mine - theirs} == newer


OFFICIAL = "from rocketmq import Message as OfficialMessage; from rocketmq.grpc_protocol import Resource as Official"
OURS = "from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Resource as Ours"
EXCHANGE = "assert Official is not Ours; assert Official.FromString(Ours(name='t').SerializeToString()).name == 't'"


@pytest.mark.parametrize("order", [(OURS, OFFICIAL), (OFFICIAL, OURS)], ids=["ours first", "official first"])
def test_both_live_in_one_process(order: tuple[str, str]) -> None:
    program = "; ".join([*order, EXCHANGE])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
