"""How long calls take: a meter for each method, which the doors tell when a call ends."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from google.protobuf.message import Message
from grpc import StatusCode

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_service.metrics.family import Family, histogram
from kourou_service.metrics.histogram import Histogram

if TYPE_CHECKING:  # the engine has meters
    from kourou_service.engine.interface import Call

LATENCY_BOUNDS_MS = (0.25, 0.5, 1, 3, 5, 7, 10, 20, 50, 100, 200, 500, 1000, 2000, 3000, 10_000, 30_000)
"""RocketMQ's own (1 to 3000), with finer ones between and around them."""

Code = int | StatusCode
"""Of the answer's status, of apache.rocketmq.v2.Code; or of the call itself, if it ended with an error of gRPC's."""

# A poll that found nothing has not failed.
_SUCCESSES = (definition_pb2.OK, definition_pb2.MESSAGE_NOT_FOUND, StatusCode.OK)
_LABELS = ("protocol_type", "request_code", "response_code", "is_long_polling", "result")


class Followed(Protocol):
    """One call that is logged or traced."""

    def about(self, request: Message) -> None:
        """What the request is about, for the trace."""
        ...

    def refused(self, reason: str) -> None: ...

    def ended(self, code: Code, latency_ms: float, *, failed: bool) -> None: ...


class Follower(Protocol):
    def follow(self, call: Call) -> Followed | None:
        """None for a call that nobody is interested in."""
        ...


class Meter:
    """Of one method. A door takes the time when a request comes, and says when the call is done:

    started = perf_counter()
    followed = meter.follow(call)
    ...
    meter.done(started, code, followed)
    """

    __slots__ = ("_all", "_at_once", "_by_name", "_method", "_waited")

    def __init__(self, path: str, all_: CallMeters) -> None:
        self._method = path.rpartition("/")[2]
        self._all = all_
        self._at_once: dict[Code, Histogram] = {}
        self._waited: dict[Code, Histogram] = {}
        self._by_name: dict[tuple[str, ...], Histogram] = {}

    def follow(self, call: Call) -> Followed | None:
        """None, as a rule: calls are logged at level debug only, and traced by a setting."""
        follower = self._all.follower
        return follower.follow(call) if follower is not None else None

    def done(self, started: float, code: Code, followed: Followed | None = None, *, waited: bool = False) -> None:
        """A call that began at `started` (perf_counter's seconds) is answered now.

        `waited`: for news that were not there, so how long it took says nothing of this service.
        """
        counted = (self._waited if waited else self._at_once).get(code)
        if counted is None:
            counted = self._first(code, waited=waited)
        latency_ms = (perf_counter() - started) * 1000
        counted.observe(latency_ms)
        if followed is not None:
            followed.ended(code, latency_ms, failed=code not in _SUCCESSES)

    def calls(self, code: Code) -> int:
        """How many were answered so."""
        return sum(counted[code].count for counted in (self._at_once, self._waited) if code in counted)

    def rows(self) -> Iterable[tuple[tuple[str, ...], Histogram]]:
        return self._by_name.items()

    def _first(self, code: Code, *, waited: bool) -> Histogram:
        # By name: gRPC's and RocketMQ's codes have some names in common.
        result = "success" if code in _SUCCESSES else "failed"
        labels = ("grpc", self._method, name_of(code), "true" if waited else "false", result)
        counted = self._by_name.setdefault(labels, Histogram(LATENCY_BOUNDS_MS))
        (self._waited if waited else self._at_once)[code] = counted
        return counted


class CallMeters:
    """Of one service: all its engines have the same ones, and its doors take theirs from the engine."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}
        self.follower: Follower | None = None
        """Whoever wants to know of each call."""

    def of(self, path: str) -> Meter:
        """The meter of a method by its full path."""
        meter = self._meters.get(path)
        if meter is None:
            meter = self._meters[path] = Meter(path, self)
        return meter

    def family(self) -> Family:
        return histogram(
            "rocketmq_rpc_latency_milliseconds",
            "Time from a request's arrival to its answer.",
            [row for meter in self._meters.values() for row in meter.rows()],
            _LABELS,
        )


def name_of(code: Code) -> str:
    if isinstance(code, StatusCode):
        return code.name
    known = definition_pb2.Code.DESCRIPTOR.values_by_number.get(code)
    return known.name if known is not None else str(code)
