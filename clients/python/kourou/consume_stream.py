"""The Consume stream of a topic at a broker: credits, deliveries and settlements, over any number of connections."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from kourou import codecs
from kourou.backoff import Exponential
from kourou.client import Client
from kourou.delivered import columns_of, count_of, messages_of
from kourou.doors import NoSuchDoor, knock
from kourou.errors import ConnectionFailed, CorruptMessage, KourouError, check_status, error_of_rpc
from kourou.filters import Filter, wire_form
from kourou.leases import Leases
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.stream.v1 import stream_pb2, stream_rpc
from kourou.received import ReceivedMessage
from kourou.settling import Asked, Settling
from kourou.transport import BidiCall, RpcError

_log = logging.getLogger(__name__)

_AGAIN = Exponential(initial_s=0.1, max_s=1.0)
"""Well within the grace that a broker has for a client whose stream broke."""

Call = BidiCall[stream_pb2.ConsumeRequest, stream_pb2.ConsumeResponse]


@dataclass(frozen=True, slots=True)
class Terms:
    """On which a stream is opened."""

    wanted: Filter
    invisible_duration_s: float | None
    """None: messages stay with the client as long as it lives."""


class ConsumeStream:
    """Runs from `start` to `close`, and opens the stream anew whenever it breaks."""

    def __init__(
        self,
        client: Client,
        group: str,
        topic: str,
        broker: str,
        terms: Terms,
        *,
        on_messages: Callable[[list[ReceivedMessage], bool], None],
        on_open: Callable[[], None],
        on_end: Callable[[Exception | None], None],
    ) -> None:
        """`broker`: its name; its address is looked up at each connection.
        `on_messages`: called with what comes, and whether it is the last of a credit.
        `on_open`: no credit is outstanding.
        `on_end`: a connection ended so, None for one that is opened anew. After NoSuchDoor there is no other."""
        self.broker = broker
        self.topic = topic
        self.terms = terms
        self.leases = Leases()
        self.settling = Settling(self.leases, self._wake)
        self.is_open = False
        self.address = ""
        """Where the broker was looked for at last."""
        self._client = client
        self._group = group
        self._on_messages = on_messages
        self._on_open = on_open
        self._on_end = on_end
        self._credits: deque[stream_pb2.Credit] = deque()
        self._news = asyncio.Event()
        self._call: Call | None = None
        self._running: asyncio.Task[None] | None = None
        self._failures = 0
        self._is_reopening = False
        self._hurry = asyncio.Event()

    def start(self) -> None:
        self._client.wire.on_reconnect.append(self._reconnect)
        self._running = asyncio.create_task(self._run(), name=f"kourou consume {self.topic} of {self.broker}")

    def grant(self, messages: int, size_bytes: int = 0, wait_s: float | None = None) -> None:
        """A credit; answered in the order of the credits."""
        credit = stream_pb2.Credit(messages=messages, bytes=size_bytes)
        if wait_s is not None:
            credit.wait.FromTimedelta(timedelta(seconds=wait_s))
        self._credits.append(credit)
        self._news.set()

    def reopen(self, terms: Terms) -> None:
        """At once, on these terms. What it holds, it keeps; what is on its way comes again."""
        self.terms = terms
        self._hurry.set()
        if self._call is not None:
            self._is_reopening = True
            self.is_open = False
            self._call.cancel()

    async def close(self) -> None:
        """What is not settled is left to the broker."""
        self.is_open = False
        self._client.wire.on_reconnect.remove(self._reconnect)
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self.settling.close()

    async def _run(self) -> None:
        while True:
            error = await self._connection()
            self.is_open = False
            self._credits.clear()
            self.settling.lost()
            if self._is_reopening:
                self._is_reopening = False
                self._hurry.clear()
                self._on_end(None)
                continue
            self._on_end(error)
            if isinstance(error, NoSuchDoor):
                return
            self._failures += 1
            level = logging.WARNING if self._failures == 3 else logging.DEBUG
            _log.log(level, "consuming %s of %s: %s", self.topic, self.broker, error)
            self._client.routes.pull_soon(self.topic)
            with suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN.jittered_s(self._failures)):
                    await self._hurry.wait()
            self._hurry.clear()

    async def _connection(self) -> Exception:
        """What it ended with."""
        try:
            address = self.address = await self._address()
            await knock(self._client.wire, address)
            # A broker serves those that it knows, so it has to know us first.
            await self._client.session.settled([address])
            await self._live(self._client.wire.bidi(address, stream_rpc.CONSUME), address)
            return ConnectionFailed(f"{address} ended the stream")
        except RpcError as error:
            return error_of_rpc(error, self.address)
        except (KourouError, NoSuchDoor) as error:
            return error
        except Exception as fault:
            _log.exception("consuming %s of %s failed; it is tried again", self.topic, self.broker)
            return KourouError(f"a fault of the client: {fault!r}")

    async def _address(self) -> str:
        address = (await self._client.routes.get(self.topic)).address_of_broker(self.broker)
        if address is None:
            raise ConnectionFailed(f"broker {self.broker} is not in the route of {self.topic}")
        return address

    async def _live(self, call: Call, address: str) -> None:
        self._call = call
        writing: asyncio.Task[None] | None = None
        try:
            with suppress(RpcError):  # why it ended, reading tells
                await call.write(stream_pb2.ConsumeRequest(open=self._opening()))
            self.is_open = True
            self._on_open()
            writing = asyncio.create_task(self._write(call))
            while (response := await call.read()) is not None:
                self._failures = 0
                if response.HasField("delivery"):
                    self._take(response.delivery, address)
                elif response.HasField("settled"):
                    self.settling.take(response.settled)
                else:
                    check_status(response.refused)
        finally:
            self._call = None
            if writing is not None:
                writing.cancel()
            call.cancel()

    def _opening(self) -> stream_pb2.Open:
        terms = self.terms
        opening = stream_pb2.Open(
            group=v2.Resource(name=self._group),
            topic=v2.Resource(name=self.topic),
            filter=wire_form(terms.wanted),
            auto_renew=terms.invisible_duration_s is None,
            codecs=codecs.ALL,
            held=self.leases.held(asyncio.get_running_loop().time()),
        )
        if terms.invisible_duration_s is not None:
            opening.invisible_duration.FromTimedelta(timedelta(seconds=terms.invisible_duration_s))
        return opening

    async def _write(self, call: Call) -> None:
        with suppress(RpcError):  # the reader hears it too
            while True:
                request = self._next_request()
                if request is None:
                    self._news.clear()
                    await self._news.wait()
                else:
                    await call.write(request)

    def _next_request(self) -> stream_pb2.ConsumeRequest | None:
        if self._credits:
            return stream_pb2.ConsumeRequest(credit=self._credits.popleft())
        return self.settling.next_request()

    def _take(self, delivery: stream_pb2.Delivery, address: str) -> None:
        messages: list[ReceivedMessage] = []
        if count_of(delivery):
            try:
                columns = columns_of(delivery)
                count = len(delivery.indexes) or len(columns or delivery.messages)
                lent = self.leases.take(delivery.lease, count, self.settling, self._ends_s())
                messages = messages_of(delivery, columns, lent, self.topic, self.broker, address)
            except CorruptMessage as error:
                _log.error("what %s of %s delivered cannot be read: %s", self.topic, self.broker, error)
                self._give_back(delivery)
        self._on_messages(messages, delivery.last)

    def _give_back(self, delivery: stream_pb2.Delivery) -> None:
        """Unless it comes again by itself."""
        if self.terms.invisible_duration_s is None:
            prescribed = self._client.session.broker_settings
            offsets = list(delivery.offsets) or [delivery.base_offset + index for index in delivery.indexes or (0,)]
            lent = self.leases.take(delivery.lease, len(offsets), self.settling, self._ends_s())
            is_dead = delivery.attempt >= prescribed.max_attempts
            after_s = None if is_dead else prescribed.retry.delay_s(max(1, delivery.attempt))
            self.settling.settle(Asked(lent, offsets, after_s=after_s, is_dead=is_dead))

    def _ends_s(self) -> float:
        duration_s = self.terms.invisible_duration_s
        return float("inf") if duration_s is None else asyncio.get_running_loop().time() + duration_s

    def _wake(self) -> None:
        self._news.set()

    def _reconnect(self, address: str) -> None:
        if address == self.address:
            self.reopen(self.terms)
