"""What can go wrong, as a user sees it.

KourouError
├── InvalidArgument (ValueError)      refused here, before anything was sent
├── ClosedError                       the client was closed
├── ConnectionFailed                  no NameServer or broker could be reached
├── TimeoutExceeded (TimeoutError)    no answer within the time-out; it may have been carried out or not
├── CorruptMessage                    a received body that cannot be unpacked within its limit
├── PartialFailure                    of several messages some succeeded; `outcomes` says which
└── ServerError                       a NameServer or broker said no; `code` is its code
    ├── InvalidRequest                the request itself is wrong; a repetition would fail too
    │   ├── MessageTooLarge
    │   └── InvalidReceiptHandle      settled already, or its invisible time is over
    ├── NotFound
    │   ├── TopicNotFound
    │   └── GroupNotFound
    ├── AccessDenied                  the credentials are missing or not sufficient
    ├── Forbidden                     the queue, topic or broker takes no such calls now
    ├── TooManyRequests               the broker is at its limit; later it may succeed
    ├── Unsupported                   the server does not know how to do this
    └── ServerFailure                 the server failed, or is not ready
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from grpc import StatusCode

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.transport import RpcError


class KourouError(Exception):
    """All errors of this library."""


class InvalidArgument(KourouError, ValueError):
    """An argument or message that no server would accept."""


class ClosedError(KourouError):
    """The client was closed."""


class ConnectionFailed(KourouError):
    """No NameServer or broker could be reached; nothing was carried out."""


class TimeoutExceeded(KourouError, TimeoutError):
    """The time passed, or the connection broke, before the answer: it may have been carried out or not."""


class CorruptMessage(KourouError):
    """A received body that is not what its encoding says, or unpacks to more than the limit."""


class PartialFailure(KourouError):
    """Some of several messages failed."""

    def __init__(self, what: str, outcomes: Sequence[object]) -> None:
        failures = [outcome for outcome in outcomes if isinstance(outcome, KourouError)]
        super().__init__(f"{what}: {len(failures)} of {len(outcomes)} failed; the first: {failures[0]}")
        self.outcomes = outcomes
        """For each message, in order, its result or its KourouError."""


class ServerError(KourouError):
    """A NameServer or broker answered with a code other than OK."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message or 'no explanation given'} ({code_name(code)})")
        self.code = code
        self.message = message


class InvalidRequest(ServerError):
    """The request is wrong in itself."""


class MessageTooLarge(InvalidRequest):
    """The body or the properties are over the server's limit."""


class InvalidReceiptHandle(InvalidRequest):
    """The message is settled already, or was given to another consumer after its invisible time."""


class NotFound(ServerError):
    """What was asked for does not exist."""


class TopicNotFound(NotFound):
    """The topic does not exist; the text names the command that creates it."""


class GroupNotFound(NotFound):
    """The consumer group does not exist."""


class AccessDenied(ServerError):
    """The credentials are missing or do not suffice."""


class Forbidden(ServerError):
    """The queue, topic or broker takes no such calls now, as while a broker is drained."""


class TooManyRequests(ServerError):
    """The broker is at a limit of its own."""


class Unsupported(ServerError):
    """The server does not know this call or this kind of message."""


class ServerFailure(ServerError):
    """The server failed, or is not ready."""


_ERROR_OF_CODE: dict[int, type[ServerError]] = {
    v2.UNAUTHORIZED: AccessDenied,
    v2.FORBIDDEN: Forbidden,
    v2.INVALID_RECEIPT_HANDLE: InvalidReceiptHandle,
    v2.TOPIC_NOT_FOUND: TopicNotFound,
    v2.CONSUMER_GROUP_NOT_FOUND: GroupNotFound,
    v2.PAYLOAD_TOO_LARGE: MessageTooLarge,
    v2.MESSAGE_BODY_TOO_LARGE: MessageTooLarge,
    v2.MESSAGE_PROPERTIES_TOO_LARGE: MessageTooLarge,
    v2.REQUEST_TIMEOUT: ServerFailure,
    v2.TOO_MANY_REQUESTS: TooManyRequests,
    v2.LITE_TOPIC_QUOTA_EXCEEDED: TooManyRequests,
    v2.LITE_SUBSCRIPTION_QUOTA_EXCEEDED: TooManyRequests,
    v2.NOT_IMPLEMENTED: Unsupported,
    v2.UNSUPPORTED: Unsupported,
    v2.VERSION_UNSUPPORTED: Unsupported,
    v2.VERIFY_FIFO_MESSAGE_UNSUPPORTED: Unsupported,
}

# For codes that are not in the table, also such as this version does not know: what their hundreds mean.
_ERROR_OF_CLASS: dict[int, type[ServerError]] = {
    400: InvalidRequest,
    401: AccessDenied,
    402: AccessDenied,
    403: Forbidden,
    404: NotFound,
    413: MessageTooLarge,
    428: InvalidRequest,
    429: TooManyRequests,
    431: InvalidRequest,
    501: Unsupported,
    505: Unsupported,
}

# Answers of the server's gRPC layer, which come without a code of the API.
_CODE_OF_STATUS: dict[StatusCode, int] = {
    StatusCode.INVALID_ARGUMENT: v2.BAD_REQUEST,
    StatusCode.NOT_FOUND: v2.NOT_FOUND,
    StatusCode.PERMISSION_DENIED: v2.UNAUTHORIZED,
    StatusCode.UNAUTHENTICATED: v2.UNAUTHORIZED,
    StatusCode.RESOURCE_EXHAUSTED: v2.TOO_MANY_REQUESTS,
    StatusCode.FAILED_PRECONDITION: v2.PRECONDITION_FAILED,
    StatusCode.UNIMPLEMENTED: v2.NOT_IMPLEMENTED,
}

_NO_ANSWER = frozenset({StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED, StatusCode.UNKNOWN})


def code_name(code: int) -> str:
    """As in "TOPIC_NOT_FOUND 40402"."""
    try:
        return f"{v2.Code.Name(cast('v2.Code', code))} {code}"
    except ValueError:
        return f"code {code}"


def error_of_status(status: v2.Status) -> ServerError | None:
    """None when the status is OK."""
    if status.code == v2.OK:
        return None
    return _error_class(status.code)(status.code, status.message)


def check_status(status: v2.Status) -> None:
    """Raises the ServerError of a status that is not OK."""
    error = error_of_status(status)
    if error is not None:
        raise error


def error_of_rpc(error: RpcError, address: str) -> KourouError:
    """What a call to `address` that ended without an answer means to a user."""
    if not error.sent:
        return ConnectionFailed(f"{address} cannot be reached: {_why_not_connected(error.details)}")
    if error.code is StatusCode.DEADLINE_EXCEEDED:
        return TimeoutExceeded(f"{address} did not answer in time")
    if error.code in _NO_ANSWER:
        return TimeoutExceeded(f"{address} gave no answer: {error.details}")
    code = _CODE_OF_STATUS.get(error.code, v2.INTERNAL_SERVER_ERROR)
    return _error_class(code)(code, f"{address}: {error.details}")


def _why_not_connected(details: str) -> str:
    """Of gRPC's long chain the last link is the reason, as in "Connection refused"."""
    reason = details.removesuffix(": OK").rsplit(": ", 1)[-1].rstrip("]")
    if "WRONG_VERSION_NUMBER" in details:
        return "it does not speak TLS"
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return f"its certificate is not believed, {reason}"
    if "Hostname Verification Check failed" in details:
        return "its certificate is made out for another name"
    if reason == "Socket closed":
        return "it closed the connection; perhaps it speaks TLS, or wants to see a certificate"
    return reason


def _error_class(code: int) -> type[ServerError]:
    return _ERROR_OF_CODE.get(code) or _ERROR_OF_CLASS.get(code // 100, ServerFailure)


PASSING = (ConnectionFailed, TimeoutExceeded, Forbidden, TooManyRequests, ServerFailure)
"""What may be over at the next try, here or at another broker."""
