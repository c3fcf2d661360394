"""Columns: whatever a message has comes out as it went in, and nothing else is believed."""

import string
from datetime import UTC, datetime, timedelta

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from kourou import CorruptMessage, Message, MessageType
from kourou.batch import Columns, encode
from kourou.codecs import MAX_UNPACKED_BYTES
from kourou.message_id import message_id_after, new_message_ids
from kourou.protocol.kourou.stream.v1 import stream_pb2

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)

words = st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable() and text.strip())
tags = st.one_of(st.none(), words.filter(lambda text: "|" not in text))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
properties = st.dictionaries(texts.filter(bool), texts, max_size=3)


@st.composite
def batches(draw: st.DrawFn) -> list[Message]:
    """Of one kind."""
    kind = draw(st.sampled_from(list(MessageType)))
    group = draw(words)
    fixed = {
        MessageType.FIFO: {"message_group": group},
        MessageType.PRIORITY: {"priority": draw(st.integers(0, (1 << 31) - 1))},
        MessageType.LITE: {"lite_topic": draw(st.text(string.ascii_letters, min_size=1, max_size=8))},
    }.get(kind, {})
    messages: list[Message] = []
    for _ in range(draw(st.integers(1, 6))):
        own = dict(fixed)
        if kind is MessageType.DELAY:
            own["delivery_time"] = NOW + timedelta(milliseconds=draw(st.integers(-(10**9), 10**12)))
        messages.append(
            Message(
                "t",
                draw(st.binary(min_size=1, max_size=40)),
                tag=draw(tags),
                keys=draw(st.lists(words, max_size=3)),
                properties=draw(properties),
                **own,
            )
        )
    return messages


@given(batches(), st.sampled_from([None, "zstd", "lz4"]))
def test_what_goes_in_comes_out(messages, compression):
    first_id = new_message_ids(len(messages))
    encoded = encode(messages, first_id, 1_700_000_000_123, compression)
    columns = Columns(encoded.headers, encoded.bodies)
    assert len(columns) == len(messages)
    assert columns.headers.born_ms == 1_700_000_000_123
    for index, message in enumerate(messages):
        assert columns.body(index) == message.body
        assert columns.tag(index) == message.tag
        assert columns.keys(index) == tuple(message.keys)
        assert columns.properties(index) == message.properties
        assert columns.delivery_time(index) == message.delivery_time
        assert columns.message_id(index) == message_id_after(first_id, index)
        assert columns.sizes[index] == len(message.body)
    assert columns.type is messages[0].type


@given(st.integers(1, 4096))
def test_ids_of_a_batch_count_up_without_a_wrap(count):
    first = new_message_ids(count)
    following = new_message_ids(1)
    assert len(first) == 34
    assert int(first[-8:], 16) + count <= 1 << 32
    last = message_id_after(first, count - 1)
    assert last[:26] == first[:26]
    assert int(last[-8:], 16) == int(first[-8:], 16) + count - 1
    assert following[26:] not in {message_id_after(first, n)[26:] for n in range(count)}


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_bytes_break_more_than_the_batch(headers, bodies):
    try:
        columns = Columns(headers, bodies)
        for index in range(len(columns)):
            columns.body(index)
            for look in (columns.tag, columns.keys, columns.properties, columns.message_id):
                look(index)
    except CorruptMessage:
        pass


def headers(**changes: object) -> bytes:
    fields: dict[str, object] = {"first_message_id": "0" * 34, "body_bytes": [1, 2]}
    return stream_pb2.BatchHeaders(**(fields | changes)).SerializeToString()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"body_bytes": []}, "no message"),
        ({"tags": ["a"], "tag_numbers": [1]}, "1 tags"),
        ({"tags": ["a"], "tag_numbers": [1, 2]}, "a tag that is not there"),
        ({"keys": ["a"], "key_counts": [1]}, "1 key counts"),
        ({"keys": ["a"], "key_counts": [1, 1]}, "1 keys"),
        ({"property_names": ["a"], "property_values": [], "property_counts": [1, 0]}, "properties"),
        ({"delivery_ms": [1, 2, 3]}, "3 delivery times"),
        ({"first_message_id": "no digits"}, "hex digits"),
        ({"first_message_id": "F" * 34}, "beyond"),
    ],
)
def test_columns_that_do_not_fit_together(changes, says):
    with pytest.raises(CorruptMessage, match=says):
        Columns(headers(**changes), b"abc")


def unpacked(codec: stream_pb2.Codec, packed: bytes, size: int) -> bytes:
    return Columns(headers(codec=codec, body_bytes=[size]), packed).body(0)


def test_what_is_packed_is_unpacked():
    assert unpacked(stream_pb2.CODEC_ZSTD, zstandard.ZstdCompressor().compress(b"abc"), 3) == b"abc"
    assert unpacked(stream_pb2.CODEC_LZ4, lz4.frame.compress(b"abc", store_size=True), 3) == b"abc"


BOMB = bytes(50 * 1024 * 1024)


@pytest.mark.parametrize(
    ("codec", "packed", "size", "says"),
    [
        (stream_pb2.CODEC_UNSPECIFIED, b"abcd", 3, "promises 3 bytes and has 4"),
        (stream_pb2.CODEC_ZSTD, zstandard.ZstdCompressor().compress(BOMB), 3, "its zstd frame 52428800"),
        (stream_pb2.CODEC_ZSTD, zstandard.ZstdCompressor().compress(b"abc")[:-1], 3, "no zstd"),
        (stream_pb2.CODEC_ZSTD, b"abc", 3, "no zstd"),
        (stream_pb2.CODEC_LZ4, lz4.frame.compress(BOMB), 3, "cut off"),
        (stream_pb2.CODEC_LZ4, lz4.frame.compress(b"abcd"), 3, "and has 4"),
        (stream_pb2.CODEC_LZ4, lz4.frame.compress(b"abc") + b"x", 3, "not all of it"),
        (stream_pb2.CODEC_LZ4, b"abc", 3, "no lz4|cut off"),
        (9, b"abc", 3, "codec 9"),
        (stream_pb2.CODEC_ZSTD, b"", MAX_UNPACKED_BYTES + 1, "at most"),
    ],
)
def test_what_unpacks_to_something_else_than_promised_is_corrupt(codec, packed, size, says):
    with pytest.raises(CorruptMessage, match=says):
        unpacked(codec, packed, size)
