"""Calls to one address in the name of one client: its headers on every call, and the errors as users see them."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from importlib import metadata
from typing import TypeVar, cast

from google.protobuf.message import Message as ProtobufMessage

from kourou.errors import check_status, error_of_rpc
from kourou.namespaces import NamespacedCall, put_into
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.method import BidiMethod, ServerStreamMethod, UnaryMethod
from kourou.transport import BidiCall, Reply, RpcError, Transport

Q = TypeVar("Q", bound=ProtobufMessage)
A = TypeVar("A", bound=ProtobufMessage)

VERSION = metadata.version("kourou")
REQUEST_TIMEOUT_S = 3.0
"""For calls that a server answers at once; a long poll has its waiting time on top."""


def new_client_id() -> str:
    """host@pid@random: says where a client runs, and is unique where hosts share their names."""
    return f"{socket.gethostname()}@{os.getpid()}@{secrets.token_hex(4)}"


class Wire:
    """The calls of one client; every failure is a KourouError."""

    def __init__(
        self,
        transport: Transport,
        client_id: str,
        headers: Sequence[tuple[str, str]] = (),
        namespace: str = "",
    ) -> None:
        """`namespace`: of all topics and groups that the calls name; empty: as they are named."""
        self.client_id = client_id
        self.on_reconnect: list[Callable[[str], object]] = []
        """Called with an address that is to be reached over a new connection from now on."""
        self._transport = transport
        self._namespace = namespace
        self._headers = (
            ("x-mq-client-id", client_id),
            ("x-mq-language", "PYTHON"),
            ("x-mq-client-version", VERSION),
            ("x-mq-protocol", "v2"),
            *((("x-mq-namespace", namespace),) if namespace else ()),
            *headers,
        )

    async def call(
        self, address: str, method: UnaryMethod[Q, A], request: Q, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> Reply[A]:
        """The reply, its status checked. MULTIPLE_RESULTS passes: the entries have statuses of their own."""
        if self._namespace:
            put_into(self._namespace, request)
        try:
            channel = self._transport.channel(address)
            reply = await channel.unary(method, request, timeout_s=timeout_s, metadata=self._headers)
        except RpcError as error:
            raise error_of_rpc(error, address) from error
        # All answers of apache.rocketmq.v2 and kourou.routing have it.
        status = cast("v2.Status", getattr(reply.message, "status"))  # noqa: B009
        if status.code != v2.MULTIPLE_RESULTS:
            check_status(status)
        return reply

    async def stream(
        self, address: str, method: ServerStreamMethod[Q, A], request: Q, timeout_s: float
    ) -> AsyncGenerator[A, None]:
        if self._namespace:
            put_into(self._namespace, request)
        try:
            channel = self._transport.channel(address)
            answers = channel.server_stream(method, request, timeout_s=timeout_s, metadata=self._headers)
            async with aclosing(answers):
                async for answer in answers:
                    yield answer
        except RpcError as error:
            raise error_of_rpc(error, address) from error

    def bidi(self, address: str, method: BidiMethod[Q, A]) -> BidiCall[Q, A]:
        """Raises RpcError, as the stream's methods do."""
        call = self._transport.channel(address).bidi(method, metadata=self._headers)
        return NamespacedCall(call, self._namespace) if self._namespace else call

    def reconnect(self, address: str) -> None:
        """Further calls to it go over a new connection."""
        self._transport.reconnect(address)
        for callback in self.on_reconnect:
            callback(address)
