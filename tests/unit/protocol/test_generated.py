"""The generated package: well-known types of its own pool, method tables, pickling, stubs."""

import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.timestamp_pb2 import Timestamp as DefaultTimestamp

from kourou import protocol
from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.google.protobuf import duration_pb2, timestamp_pb2
from kourou.protocol.kourou.admin.v1 import admin_rpc
from kourou.protocol.kourou.broker.v1 import broker_rpc
from kourou.protocol.kourou.registry.v1 import registry_rpc
from kourou.protocol.kourou.routing.v1 import routing_rpc
from kourou.protocol.method import BidiMethod, ServerStreamMethod, UnaryMethod
from kourou.protocol.pool import POOL

TABLES = [service_rpc, admin_rpc, broker_rpc, registry_rpc, routing_rpc]


def test_a_timestamp_of_our_pool_is_a_well_known_type() -> None:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromMilliseconds(1_700_000_000_123)
    assert (stamp.seconds, stamp.nanos) == (1_700_000_000, 123_000_000)
    assert stamp.ToMilliseconds() == 1_700_000_000_123
    assert stamp.ToDatetime(UTC) == datetime(2023, 11, 14, 22, 13, 20, 123_000, UTC)
    stamp.GetCurrentTime()
    assert stamp.ToDatetime(UTC) > datetime(2024, 1, 1, tzinfo=UTC)
    assert not isinstance(stamp, DefaultTimestamp)


def test_a_duration_of_our_pool_is_a_well_known_type() -> None:
    duration = duration_pb2.Duration()
    duration.FromMilliseconds(-1_500)
    assert (duration.seconds, duration.nanos) == (-1, -500_000_000)
    assert duration.ToTimedelta() == timedelta(seconds=-1.5)
    duration.FromJsonString("2.5s")
    assert duration.ToMilliseconds() == 2_500


def test_well_known_fields_take_python_times_and_json() -> None:
    properties = definition_pb2.SystemProperties(
        born_timestamp=datetime(2026, 7, 1, tzinfo=UTC), invisible_duration=timedelta(seconds=30)
    )
    assert isinstance(properties.born_timestamp, timestamp_pb2.Timestamp)
    assert properties.invisible_duration.ToSeconds() == 30
    assert json_format.MessageToDict(properties) == {
        "bornTimestamp": "2026-07-01T00:00:00Z",
        "invisibleDuration": "30s",
    }


def test_the_wire_is_that_of_the_default_well_known_types() -> None:
    ours = timestamp_pb2.Timestamp(seconds=7, nanos=9)
    assert DefaultTimestamp.FromString(ours.SerializeToString()).ToNanoseconds() == 7_000_000_009


def test_classes_know_where_they_live() -> None:
    message = definition_pb2.Resource(name="orders")
    assert pickle.loads(pickle.dumps(message)) == message
    assert definition_pb2.Resource.__module__ == "kourou.protocol.apache.rocketmq.v2.definition_pb2"
    assert definition_pb2.Code.Name(definition_pb2.TOPIC_NOT_FOUND) == "TOPIC_NOT_FOUND"
    assert definition_pb2.OffsetOption.Policy.Name(definition_pb2.OffsetOption.MAX) == "MAX"


def test_nothing_of_ours_is_in_the_default_pool() -> None:
    with pytest.raises(KeyError):
        Default().FindFileByName("kourou/admin/v1/admin.proto")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.SERVICE)
def test_a_method_table_holds_its_whole_service(table: ModuleType) -> None:
    service = POOL.FindServiceByName(table.SERVICE)
    expected = {
        f"/{table.SERVICE}/{m.name}": (m.input_type.full_name, m.output_type.full_name) for m in service.methods
    }
    assert {
        m.path: (m.request.DESCRIPTOR.full_name, m.response.DESCRIPTOR.full_name) for m in table.METHODS
    } == expected


def test_the_kinds_of_methods() -> None:
    assert (
        UnaryMethod(
            "/apache.rocketmq.v2.MessagingService/SendMessage",
            service_pb2.SendMessageRequest,
            service_pb2.SendMessageResponse,
        )
        == service_rpc.SEND_MESSAGE
    )
    assert isinstance(service_rpc.RECEIVE_MESSAGE, ServerStreamMethod)
    assert isinstance(service_rpc.TELEMETRY, BidiMethod)
    assert isinstance(registry_rpc.REGISTER, BidiMethod)


def test_the_pool_holds_every_proto_file() -> None:
    root = Path(__file__).parents[3]
    for path in (root / "proto").rglob("*.proto"):
        file = FileDescriptorProto()
        POOL.FindFileByName(path.relative_to(root / "proto").as_posix()).CopyToProto(file)
        module = (Path(protocol.__file__).parent / file.name).with_suffix("")
        assert module.with_name(f"{module.name}_pb2.pyi").exists()
