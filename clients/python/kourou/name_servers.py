"""Calls that any NameServer can answer: the one in favour is asked, and after a failure the next one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from google.protobuf.message import Message as ProtobufMessage

from kourou.errors import ConnectionFailed, InvalidArgument, KourouError, NotFound, ServerFailure, TimeoutExceeded
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.method import UnaryMethod
from kourou.resolver import NamesrvList, Resolver, leave_to_grpc, resolve_by_system
from kourou.route import endpoints_of
from kourou.wire import REQUEST_TIMEOUT_S, Wire

Q = TypeVar("Q", bound=ProtobufMessage)
A = TypeVar("A", bound=ProtobufMessage)

CALL_TIMEOUT_S = 1.0
"""For each of several NameServers: they answer from memory, so one that is slower is in trouble."""

_ASK_THE_NEXT = (ConnectionFailed, TimeoutExceeded, ServerFailure)


class NameServers:
    def __init__(self, targets: Sequence[str], wire: Wire, *, tls: bool = False, double_shuffle: bool = False) -> None:
        self._targets = targets
        self._wire = wire
        self._list = NamesrvList(double_shuffle=double_shuffle)
        try:
            self._resolver = Resolver(targets, leave_to_grpc if tls else resolve_by_system)
        except ValueError as error:
            raise InvalidArgument(str(error)) from None

    async def call(self, method: UnaryMethod[Q, A], request: Callable[[v2.Endpoints], Q], wait_s: float = 0.0) -> A:
        """`request` makes it, given the access point as the user named it: by that the server knows which of the
        brokers' addresses to answer. `wait_s`: how long the server may wait by design. Raises ConnectionFailed when
        none answers, and NotFound only when none that answers knows it: one of them may not hear the brokers."""
        errors: list[KourouError] = []
        not_found: NotFound | None = None
        async for address, access_point, of_count in self._in_order():
            timeout_s = wait_s + (CALL_TIMEOUT_S if of_count > 1 else REQUEST_TIMEOUT_S)
            try:
                made = request(access_point)
                return (await self._wire.call(address, method, made, timeout_s)).message
            except NotFound as error:
                not_found = error
            except _ASK_THE_NEXT as error:
                self._list.failed(address)
                errors.append(error)
        if not_found is not None:
            raise not_found
        reasons = "; ".join(map(str, errors)) or "the names cannot be resolved"
        advice = "`kourou dev` starts a local cluster, KOUROU_NAMESRV or namesrv names another"
        raise ConnectionFailed(f"no NameServer of {', '.join(self._targets)} answers ({reasons}); {advice}")

    async def access_points(self) -> dict[str, v2.Endpoints]:
        """For each address that is known, the access point as the user named it."""
        await self._resolver.addresses()
        return self._access_points()

    def _access_points(self) -> dict[str, v2.Endpoints]:
        by_target = zip(self._targets, self._resolver.by_target, strict=True)
        return {address: endpoints_of(target) for target, found in by_target for address in found}

    async def _in_order(self) -> AsyncIterator[tuple[str, v2.Endpoints, int]]:
        """Each address and access point once, and how many are known; those of names that are slow to resolve last."""
        tried: set[str] = set()
        for ready in (self._resolver.addresses, self._resolver.all_addresses):
            await ready()
            self._list.update(self._resolver.by_target)
            access_points = self._access_points()
            for address in self._list.order:
                if address not in tried:
                    tried.add(address)
                    yield address, access_points[address], len(access_points)

    async def close(self) -> None:
        await self._resolver.close()
