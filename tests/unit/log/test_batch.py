"""A batch is read as protobuf reads it, whatever form the request came in."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from kourou.protocol.kourou.stream.v1 import stream_pb2
from kourou_broker.log.batch import Batch

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
