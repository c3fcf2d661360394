import gzip
from datetime import UTC, datetime, timedelta, timezone

import pytest

from kourou import CorruptMessage, InvalidArgument, Message, MessageType, ReceivedMessage
from kourou.limits import MAX_BODY_BYTES
from kourou.message import to_protobuf
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp
from tests.unit.client.fake import received

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def of(body: bytes, encoding: v2.Encoding = v2.IDENTITY) -> ReceivedMessage:
    return ReceivedMessage(received("t", body, "h", encoding=encoding), "broker-a", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("fault", "arguments"),
    [
        ("empty", {"body": b""}),
        ("not bytes", {"body": "text"}),
        ("at most 4194304", {"body": bytes(MAX_BODY_BYTES + 1)}),
        ("tag is blank", {"tag": " "}),
        ("separates tags", {"tag": "a|b"}),
        ("control character", {"tag": "a\nb"}),
        ("one string", {"keys": "order-1"}),
        ("blank", {"keys": ["a", ""]}),
        ("empty name", {"properties": {"": "x"}}),
        ("key '.udcff' is no Unicode", {"keys": ["\udcff"]}),
        ("key 7 is int", {"keys": [7]}),
        ("property '.udcff' is no Unicode", {"properties": {"x": "\udcff"}}),
        ("property 7 is int", {"properties": {"x": 7}}),
        ("tag 7 is int", {"tag": 7}),
        ("topic name", {"topic": "no spaces"}),
        ("message group is blank", {"message_group": " "}),
        ("message group 7 is int", {"message_group": 7}),
        ("no time zone", {"delivery_time": datetime(2030, 1, 1)}),
        ("out of range", {"delivery_time": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))}),
        ("5 is int, not datetime", {"delivery_time": 5}),
        ("priority -1 is not from 0", {"priority": -1}),
        ("priority 2147483648 is not", {"priority": 1 << 31}),
        ("priority True is bool", {"priority": True}),
        ("lite topic's name 'a b'", {"lite_topic": "a b"}),
        ("lite topic's name is empty", {"lite_topic": ""}),
        ("lite topic's name has 65 characters", {"lite_topic": "x" * 65}),
        ("cannot have message_group and priority", {"message_group": "g", "priority": 0}),
        ("cannot have delivery_time and lite_topic", {"delivery_time": NOON, "lite_topic": "l"}),
    ],
)
def test_what_no_broker_would_take_is_refused_here(fault, arguments):
    with pytest.raises(InvalidArgument, match=fault):
        Message(**{"topic": "t", "body": b"x", **arguments})


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("message_group", "order-1", MessageType.FIFO),
        ("delivery_time", NOON + timedelta(microseconds=1500), MessageType.DELAY),
        ("delivery_time", NOON.astimezone(timezone(timedelta(hours=5))), MessageType.DELAY),
        ("priority", 0, MessageType.PRIORITY),
        ("lite_topic", "session-1", MessageType.LITE),
    ],
)
def test_the_type_follows_from_what_is_set_and_arrives_with_it(field, value, kind):
    message = Message("t", b"x", **{field: value})
    assert message.type is kind
    wire = to_protobuf(message, "id", Timestamp(seconds=1))
    assert wire.system_properties.message_type == v2.MessageType.Value(kind.name)
    arrived = ReceivedMessage(wire, "broker-a", "127.0.0.1:1")
    assert (arrived.type, getattr(arrived, field)) == (kind, value)
    others = {"message_group", "delivery_time", "priority", "lite_topic"} - {field}
    assert all(getattr(arrived, other) is None for other in others)


def test_a_message_of_a_transaction_is_an_ordinary_one_until_it_is_sent():
    message = Message("t", b"x", tag="a")
    assert message.type is MessageType.NORMAL
    assert ReceivedMessage(to_protobuf(message, "id", Timestamp(seconds=1)), "b", "a:1").type is MessageType.NORMAL
    half = ReceivedMessage(to_protobuf(message, "id", Timestamp(seconds=1), MessageType.TRANSACTION), "b", "a:1")
    assert (half.type, half.tag, half.message_id) == (MessageType.TRANSACTION, "a", "id")


def test_a_gzipped_body_is_unpacked():
    assert of(gzip.compress(b"hello", mtime=0), v2.GZIP).body == b"hello"
    assert of(gzip.compress(bytes(MAX_BODY_BYTES)), v2.GZIP).body == bytes(MAX_BODY_BYTES)


def test_a_gzip_bomb_is_not_unpacked():
    bomb = gzip.compress(bytes(200 * 1024 * 1024), compresslevel=1)
    assert len(bomb) < MAX_BODY_BYTES
    message = of(bomb, v2.GZIP)
    with pytest.raises(CorruptMessage, match="more than 4194304"):
        _ = message.body


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"hello", mtime=0)[:-5]])
def test_a_broken_gzip(body):
    with pytest.raises(CorruptMessage):
        _ = of(body, v2.GZIP).body


def test_all_fields():
    wire = received("t", b"x", "h", attempt=3)
    system = wire.system_properties
    system.tag, system.queue_id, system.queue_offset, system.born_host = "red", 5, 7, "there"
    system.keys.extend(["k1", "k2"])
    system.born_timestamp.FromMilliseconds(1_700_000_000_500)
    system.store_timestamp.FromMilliseconds(1_700_000_001_000)
    system.dead_letter_queue.topic, system.dead_letter_queue.message_id = "orders", "id-0"
    wire.user_properties["p"] = "v"
    message = ReceivedMessage(wire, "broker-a", "127.0.0.1:1")
    assert (message.topic, message.tag, message.keys, message.properties) == ("t", "red", ("k1", "k2"), {"p": "v"})
    assert (message.attempt, message.queue_id, message.offset, message.broker) == (3, 5, 7, "broker-a")
    assert message.born_at == datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC)
    assert message.stored_at == datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC)
    assert message.dead_letter_of == ("orders", "id-0")
    assert of(b"x").tag is of(b"x").stored_at is of(b"x").dead_letter_of is None
