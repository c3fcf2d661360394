import pytest
from grpc import StatusCode

from kourou import errors
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.transport import RpcError


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (v2.BAD_REQUEST, errors.InvalidRequest),
        (v2.ILLEGAL_MESSAGE_TAG, errors.InvalidRequest),
        (v2.INVALID_RECEIPT_HANDLE, errors.InvalidReceiptHandle),
        (v2.UNAUTHORIZED, errors.AccessDenied),
        (v2.FORBIDDEN, errors.Forbidden),
        (v2.TOPIC_NOT_FOUND, errors.TopicNotFound),
        (v2.CONSUMER_GROUP_NOT_FOUND, errors.GroupNotFound),
        (v2.OFFSET_NOT_FOUND, errors.NotFound),
        (v2.MESSAGE_BODY_TOO_LARGE, errors.MessageTooLarge),
        (v2.TOO_MANY_REQUESTS, errors.TooManyRequests),
        (v2.INTERNAL_SERVER_ERROR, errors.ServerFailure),
        (v2.NOT_IMPLEMENTED, errors.Unsupported),
        (40499, errors.NotFound),  # codes of tomorrow
        (77777, errors.ServerFailure),
    ],
)
def test_each_code_has_its_error(code, kind):
    with pytest.raises(errors.ServerError) as caught:
        errors.check_status(v2.Status(code=code, message="because"))
    assert type(caught.value) is kind
    assert caught.value.code == code
    assert "because" in str(caught.value)
    assert str(code) in str(caught.value)


def test_ok_is_no_error():
    errors.check_status(v2.Status(code=v2.OK))


@pytest.mark.parametrize(
    ("code", "sent", "kind"),
    [
        (StatusCode.UNAVAILABLE, False, errors.ConnectionFailed),
        (StatusCode.UNAVAILABLE, True, errors.TimeoutExceeded),
        (StatusCode.DEADLINE_EXCEEDED, True, errors.TimeoutExceeded),
        (StatusCode.CANCELLED, True, errors.TimeoutExceeded),
        (StatusCode.UNIMPLEMENTED, True, errors.Unsupported),
        (StatusCode.RESOURCE_EXHAUSTED, True, errors.TooManyRequests),
        (StatusCode.INTERNAL, True, errors.ServerFailure),
    ],
)
def test_calls_without_an_answer(code, sent, kind):
    error = errors.error_of_rpc(RpcError(code, "details", sent=sent), "host:1")
    assert type(error) is kind
    assert "host:1" in str(error)


def test_every_kind_of_error_is_in_the_tree_at_the_top():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.KourouError)]
    assert errors.__doc__ is not None
    for kind in kinds:
        assert kind.__name__ in errors.__doc__.split()
