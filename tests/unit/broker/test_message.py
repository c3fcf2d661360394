"""What is delivered is what was sent, with the delivery's fields in the one system_properties, for any decoder."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2
from kourou.protocol.google.protobuf import duration_pb2
from kourou_broker.log.section import Section
from kourou_broker.operations.message import digest, stored_form, tag_hash, varint
from kourou_broker.operations.poll import Delivery
from kourou_broker.operations.section_reader import TableSection
from kourou_broker.rpc.delivered import Deliverer
from kourou_broker.state import records
from kourou_broker.state.definitions import Name, Queue, Topic
from kourou_broker.state.records import Lease
from tests.simulation.cluster import topic_definition

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
PROPERTY = TEXT.filter(lambda name: not name.startswith("__") and not name.isupper())


@st.composite
def messages(draw: st.DrawFn) -> definition_pb2.Message:
    system = definition_pb2.SystemProperties(
        message_id=draw(TEXT),
        tag=draw(st.none() | TEXT.filter(lambda tag: "|" not in tag)),
        keys=draw(st.lists(TEXT, max_size=3)),
        message_type=draw(st.sampled_from((definition_pb2.NORMAL, definition_pb2.MESSAGE_TYPE_UNSPECIFIED))),
        body_encoding=draw(st.sampled_from((0, definition_pb2.IDENTITY, definition_pb2.GZIP))),  # type: ignore[arg-type]
        born_host=draw(st.text(max_size=10)),
        trace_context=draw(st.none() | st.text(max_size=10)),
    )
    if draw(st.booleans()):
        system.born_timestamp.FromMilliseconds(draw(st.integers(0, 2**40)))
    if draw(st.booleans()):
        system.body_digest.type = definition_pb2.CRC32
        system.body_digest.checksum = draw(st.text(max_size=8))
    if draw(st.booleans()):  # only brokers may say such things: they must not come through
        system.receipt_handle = "forged"
        system.delivery_attempt = 99
        system.queue_offset = 12345
        system.dead_letter_queue.topic = "forged"
    return definition_pb2.Message(
        topic=definition_pb2.Resource(name="orders"),
        user_properties=draw(st.dictionaries(PROPERTY, st.text(max_size=20), max_size=4)),
        system_properties=system,
        body=draw(st.binary(min_size=1, max_size=300)),
    )


def _delivered(sent: list[definition_pb2.Message]) -> list[bytes]:
    """ReceiveMessageResponses as bytes, of messages stored in one section."""
    copies = [definition_pb2.Message.FromString(message.SerializeToString()) for message in sent]
    parts = [stored_form(message, 5_000) for message in copies]
    section = records.messages(1, 1, 3, 100, [part.row for part in parts], [part.body for part in parts])
    queue = Queue(Topic(1, Name("", "orders"), 1, 4, topic_definition("orders"), []), 3)
    read = TableSection(Section(*section), 0, 7_123, section.payload)
    deliverer = Deliverer("broker:1")
    invisible = duration_pb2.Duration(seconds=30)
    lease = Lease(1, 2, 3, 4, False, "client", [])
    stored = [read.message(index) for index in range(section.count)]
    delivery = Delivery(queue, stored, lease)
    return [deliverer.lent(delivery, message, 9, invisible) for message in stored]


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """The length-delimited fields at the top level of a message, in their order."""
    fields: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        assert tag & 7 == 2
        length, at = _read_varint(data, at)
        fields.append((tag >> 3, data[at : at + length]))
        at += length
    assert at == len(data)
    return fields


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


@settings(deadline=None)
@given(sent=st.lists(messages(), min_size=1, max_size=4))
def test_what_is_delivered_is_what_was_sent(sent: list[definition_pb2.Message]) -> None:
    for index, (message, data) in enumerate(zip(sent, _delivered(sent), strict=True)):
        received = service_pb2.ReceiveMessageResponse.FromString(data).message
        assert (received.topic, received.body) == (message.topic, message.body)
        assert received.user_properties == message.user_properties
        before, after = message.system_properties, received.system_properties
        for name in ("message_id", "tag", "keys", "born_host", "trace_context"):
            assert getattr(after, name) == getattr(before, name)
            if name in ("tag", "trace_context"):
                assert after.HasField(name) == before.HasField(name)  # type: ignore[arg-type]
        assert after.message_type == definition_pb2.NORMAL
        assert after.body_encoding == (before.body_encoding or definition_pb2.IDENTITY)
        born_ms = before.born_timestamp.ToMilliseconds() if before.HasField("born_timestamp") else 5_000
        assert after.born_timestamp.ToMilliseconds() == born_ms
        wanted = before.body_digest if before.body_digest.checksum else digest(data)
        if before.body_digest.checksum:
            assert after.body_digest == wanted
        else:
            assert after.body_digest.type == definition_pb2.MD5
            assert len(after.body_digest.checksum) == 32
        assert after.store_timestamp.ToMilliseconds() == 7_123
        assert (after.queue_id, after.queue_offset, after.delivery_attempt) == (3, 100 + index, 4)
        assert after.receipt_handle != "forged"
        assert not after.HasField("dead_letter_queue")


@settings(deadline=None)
@given(sent=messages())
def test_decoders_that_replace_a_repeated_submessage_see_everything(sent: definition_pb2.Message) -> None:
    (data,) = _delivered([sent])
    ((number, message),) = _fields(data)
    assert number == 2
    fields = _fields(message)
    numbers = [number for number, _ in fields]
    assert numbers.count(3) == 1, "system_properties stand once"
    assert numbers.count(4) == 1
    assert numbers.count(1) == 1
    replaced: dict[int, Any] = dict(fields)  # the last of each
    system = definition_pb2.SystemProperties.FromString(replaced[3])
    assert system == definition_pb2.Message.FromString(message).system_properties
    assert system.message_id == sent.system_properties.message_id
    assert system.receipt_handle


@given(st.integers(0, 2**64 - 1))
def test_varints(value: int) -> None:
    assert _read_varint(varint(value), 0) == (value, len(varint(value)))


@given(st.text(max_size=30))
def test_a_tag_never_hashes_to_what_says_that_there_is_none(tag: str) -> None:
    assert 0 < tag_hash(tag) < 2**32
