"""Which door of each broker a client goes through."""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

from grpc import StatusCode

from kourou.errors import TimeoutExceeded, check_status
from kourou.protocol.kourou.stream.v1 import stream_rpc
from kourou.transport import RpcError
from kourou.wire import REQUEST_TIMEOUT_S, Wire

_log = logging.getLogger(__name__)

Door = Literal["stream", "rocketmq"]


class NoSuchDoor(Exception):
    """The broker does not know the stream door."""


class Doors:
    """A broker counts as one that has the stream door until it says otherwise; then, for as long as the client lives,
    as one that has not."""

    def __init__(self, door: Door) -> None:
        self._streams = door == "stream"
        self._lacking: set[str] = set()

    def has_stream(self, address: str) -> bool:
        return self._streams and address not in self._lacking

    def lack_stream(self, address: str) -> None:
        if address not in self._lacking:
            self._lacking.add(address)
            _log.info("%s does not know kourou.stream.v1; it is spoken to by apache.rocketmq.v2", address)


async def knock(wire: Wire, address: str) -> None:
    """Returns when the broker there opens the stream door. Raises NoSuchDoor, KourouError, RpcError.

    A Consume stream begins with a request, and gRPC may tell of a write that failed instead of why: a broker that is
    not there, or does not know it. A Publish stream begins with a response."""
    call = wire.bidi(address, stream_rpc.PUBLISH)
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            first = await call.read()
        if first is None:
            raise RpcError(StatusCode.UNAVAILABLE, "it ended the stream", sent=False)
        check_status(first.status)
    except RpcError as error:
        if error.code is StatusCode.UNIMPLEMENTED:
            raise NoSuchDoor from None
        raise
    except TimeoutError:
        raise TimeoutExceeded(f"{address} did not open a stream in time") from None
    finally:
        call.cancel()
