"""A client's namespace: all topics and groups that it names are of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar, cast

from google.protobuf.message import Message

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.transport import BidiCall

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

_RESOURCE = v2.Resource.DESCRIPTOR.full_name


def put_into(namespace: str, message: Message) -> None:
    """Every topic and group in it, at whatever depth. The default namespace needs none of this work."""
    if message.DESCRIPTOR.full_name == _RESOURCE:
        cast("v2.Resource", message).resource_namespace = namespace
        return
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for part in cast("Iterable[Message]", value if field.is_repeated else (value,)):
            put_into(namespace, part)


class NamespacedCall(Generic[Q, A]):
    """A stream whose requests are put into the namespace."""

    def __init__(self, call: BidiCall[Q, A], namespace: str) -> None:
        self._call: BidiCall[Any, Any] = call
        self._namespace = namespace

    async def write(self, request: Q) -> None:
        put_into(self._namespace, request)
        await self._call.write(request)

    async def read(self) -> A | None:
        return await self._call.read()

    async def done_writing(self) -> None:
        await self._call.done_writing()

    def cancel(self) -> None:
        self._call.cancel()
