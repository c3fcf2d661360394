"""A batch is read as protobuf reads it, whatever form the request came in."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from kourou.codecs import pack
from kourou.protocol.kourou.stream.v1 import stream_pb2
from kourou_broker.log.batch import Batch
from tests.unit.broker.streams import as_stored

REQUESTS = st.builds(
    lambda number, name, type_, headers, bodies: stream_pb2.PublishRequest(
        number=number, topic={"name": name} if name else None, type=type_, headers=headers, bodies=bodies
    ),
    st.integers(0, (1 << 64) - 1),
    st.text(max_size=200),
    st.sampled_from([0, 1, 4]),
    st.binary(max_size=300),
    st.binary(max_size=20_000),
)
PIECES = st.lists(
    st.one_of(
        st.builds(lambda number: stream_pb2.PublishRequest(number=number), st.integers(0, (1 << 64) - 1)),
        st.builds(lambda name: stream_pb2.PublishRequest(topic={"name": name}), st.text(max_size=9)),
        st.builds(lambda namespace: stream_pb2.PublishRequest(topic={"resource_namespace": namespace}), st.text("n")),
        st.builds(lambda headers: stream_pb2.PublishRequest(headers=headers), st.binary(max_size=9)),
        st.builds(lambda bodies: stream_pb2.PublishRequest(bodies=bodies), st.binary(max_size=9)),
        st.builds(lambda message_id: stream_pb2.Place(position=message_id, index=7), st.integers(0, 9)),
    )
)
"""Fields in any order, some of them twice, some of another message: protobuf takes all that."""


def check(data: bytes) -> None:
    request = stream_pb2.PublishRequest.FromString(data)
    batch = Batch(data)
    assert batch.number == request.number
    assert batch.type == request.type
    assert batch.topic == request.topic
    assert batch.raw_headers == request.headers
    assert bytes(batch.raw_bodies) == request.bodies
    assert batch.packed_bytes == len(request.bodies)
    stored = stream_pb2.PublishRequest.FromString(batch.payload)
    request.DiscardUnknownFields()
    assert stored == request


@given(REQUESTS)
def test_a_request_as_encoders_give_it_is_kept_as_it_came(request: stream_pb2.PublishRequest) -> None:
    data = request.SerializeToString()
    assert Batch(data).payload is data
    check(data)


@given(PIECES)
def test_fields_in_any_order_mean_what_protobuf_says(pieces: list[stream_pb2.PublishRequest]) -> None:
    check(b"".join(piece.SerializeToString() for piece in pieces))


def check_any(data: bytes) -> None:
    try:
        stream_pb2.PublishRequest.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            _ = Batch(data).topic
    else:
        check(data)


@given(st.binary(max_size=40))
def test_no_bytes_are_read_in_another_way_than_by_protobuf(data: bytes) -> None:
    check_any(data)


@given(st.integers(0, (1 << 70) - 1))
def test_numbers_of_any_length_mean_what_protobuf_says(number: int) -> None:
    digits = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    varint = bytes([*(digit | 0x80 for digit in digits[:-1]), digits[-1]])
    for field in (b"\x08", b"\x18"):
        check_any(field + varint)


@given(REQUESTS, st.data())
def test_a_request_that_is_cut_off_is_none(request: stream_pb2.PublishRequest, data: st.DataObject) -> None:
    whole = request.SerializeToString()
    some = whole[: data.draw(st.integers(0, len(whole)))]
    check_any(some)


def _headers(
    sizes: list[int],
    tags: list[str] | None,
    keys: list[list[str]] | None,
    properties: list[dict[str, str]] | None,
    traces: bool,
) -> stream_pb2.BatchHeaders:
    made = stream_pb2.BatchHeaders(first_message_id="01AB0000FFFE", born_ms=7, born_host="host", body_bytes=sizes)
    if tags is not None:
        made.tags.extend(["blue", "red", "green"])
        made.tag_numbers.extend(["", "blue", "red", "green"].index(tag) for tag in tags)
    for each in keys or ():
        made.keys.extend(each)
        made.key_counts.append(len(each))
    for named in properties or ():
        made.property_names.extend(named)
        made.property_values.extend(named.values())
        made.property_counts.append(len(named))
    if traces:
        made.trace_contexts.extend(f"trace {number}" for number in range(len(sizes)))
    return made


HEADERS = st.integers(1, 12).flatmap(
    lambda count: st.builds(
        _headers,
        st.lists(st.integers(1, 9), min_size=count, max_size=count),
        st.none() | st.lists(st.sampled_from(["", "red", "blue", "green"]), min_size=count, max_size=count),
        st.none() | st.lists(st.lists(st.text("xyz", min_size=1, max_size=3)), min_size=count, max_size=count),
        st.none()
        | st.lists(
            st.dictionaries(st.text("pq", min_size=1, max_size=3), st.text(max_size=3)), min_size=count, max_size=count
        ),
        st.booleans(),
    )
)


@given(HEADERS, st.sampled_from([stream_pb2.CODEC_UNSPECIFIED, stream_pb2.CODEC_ZSTD]), st.data())
def test_a_part_has_the_same_messages(
    made: stream_pb2.BatchHeaders, codec: stream_pb2.Codec, data: st.DataObject
) -> None:
    count, bodies = len(made.body_bytes), bytes(range(sum(made.body_bytes)))
    made.codec = codec
    stored = bodies if codec == stream_pb2.CODEC_UNSPECIFIED else pack(codec, bodies)
    whole = as_stored(made.SerializeToString(), stored)
    first = data.draw(st.integers(0, count - 1))
    some = data.draw(st.integers(1, count - first))
    headers, part_bodies = whole.part(first, some)
    part = as_stored(headers, bytes(part_bodies))
    assert len(part.body_bytes) == some
    for index in range(some):
        assert part.message(index) == whole.message(first + index)
        assert part.properties(index) == whole.properties(first + index)
    assert {*part.headers.tags} == {tag for index in range(some) if (tag := part.tag(index))}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 30), st.data())
def test_parts_are_as_large_as_may_be(sizes: list[int], max_bytes: int, data: st.DataObject) -> None:
    batch = as_stored(stream_pb2.BatchHeaders(body_bytes=sizes).SerializeToString(), bytes(sum(sizes)))
    first = data.draw(st.integers(0, len(sizes) - 1))
    count = data.draw(st.integers(1, len(sizes) - first))
    parts = list(batch.parts(first, count, max_bytes))
    assert [place for part in parts for place in part] == list(range(first, first + count))
    for number, part in enumerate(parts):
        held = sum(sizes[place] for place in part)
        assert held <= max_bytes or len(part) == 1
        assert number == len(parts) - 1 or held + sizes[part.stop] > max_bytes
