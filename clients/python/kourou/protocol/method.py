"""What is known of one remote method: its path and the classes of its messages, by the kind of its streams."""

from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class UnaryMethod(Generic[Q, A]):
    """One request, one response. `path` is "/package.Service/Method"."""

    path: str
    request: type[Q]
    response: type[A]


@dataclass(frozen=True, slots=True)
class ServerStreamMethod(Generic[Q, A]):
    """One request, a stream of responses."""

    path: str
    request: type[Q]
    response: type[A]


@dataclass(frozen=True, slots=True)
class BidiMethod(Generic[Q, A]):
    """A stream of requests, a stream of responses."""

    path: str
    request: type[Q]
    response: type[A]


AnyMethod: TypeAlias = UnaryMethod[Any, Any] | ServerStreamMethod[Any, Any] | BidiMethod[Any, Any]
