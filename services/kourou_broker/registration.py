"""The broker's side of registration: one long-lived stream to every address of every NameServer.

When all NameServers are down, the broker serves on and tries again, for ever.
"""

import asyncio
import random
from collections.abc import Callable

import structlog

from kourou.protocol.kourou.registry.v1 import registry_pb2, registry_rpc
from kourou.resolver import Resolver
from kourou.transport import BidiCall, RpcError, Transport
from kourou_broker.report import BrokerReport, Reader

_logger = structlog.stdlib.get_logger("kourou_broker")

HEARTBEAT_INTERVAL_S = 30.0
ANSWER_TIMEOUT_S = 5.0
GOODBYE_TIMEOUT_S = 1.0
FIRST_RETRY_S = 0.2
# A NameServer that restarts is whole again within this time.
MAX_RETRY_S = 3.0
# After a refusal: what must change first is another broker's life, or an operator's mind.
REFUSED_RETRY_S = 15.0

Stream = BidiCall[registry_pb2.RegisterRequest, registry_pb2.RegisterResponse]


class Refused(Exception):
    """A NameServer does not take this broker; the message says why."""


class Registration:
    def __init__(
        self,
        report: BrokerReport,
        namesrvs: Resolver,
        transport: Transport,
        on_refused: Callable[[str], None],
        *,
        heartbeat_interval_s: float = HEARTBEAT_INTERVAL_S,
        rng: random.Random | None = None,
    ) -> None:
        """`on_refused` is told why this broker must take no writes, and "" once no NameServer refuses it any more."""
        self._report = report
        self._namesrvs = namesrvs
        self._transport = transport
        self._on_refused = on_refused
        self._heartbeat_interval_s = heartbeat_interval_s
        self._random = rng or random.Random()
        self._links: dict[str, tuple[NamesrvLink, asyncio.Task[None]]] = {}
        self._refusals: dict[str, str] = {}
        self._resolving: asyncio.Task[tuple[str, ...]] | None = None

    @property
    def accepted_by(self) -> list[str]:
        """The addresses of the NameServers that know this broker now."""
        return [address for address, (link, _) in self._links.items() if link.accepted]

    @property
    def links(self) -> "list[NamesrvLink]":
        return [link for link, _ in self._links.values()]

    async def start(self) -> None:
        """Begins to register, with what the names lead to now and later; waits for neither."""
        self._namesrvs.on_change(self._follow)
        self._follow()
        self._resolving = asyncio.create_task(self._namesrvs.addresses())

    async def stop(self) -> None:
        """Says goodbye wherever the broker is registered."""
        if self._resolving is not None:
            self._resolving.cancel()
        links, self._links = list(self._links.values()), {}
        tasks = [task for _, task in links]
        for link, task in links:
            if not link.leave():
                task.cancel()
        if tasks:
            _, silent = await asyncio.wait(tasks, timeout=GOODBYE_TIMEOUT_S)
            for task in silent:
                _logger.warning("a NameServer did not take the goodbye")
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self) -> None:
        addresses = self._namesrvs.known
        for address in self._links.keys() - set(addresses):
            _logger.info("a NameServer's address is gone", address=address)
            _, task = self._links.pop(address)
            task.cancel()
            self._settle(address, "")
        for address in addresses:
            if address not in self._links:
                link = NamesrvLink(
                    address, self._report, self._transport, self._settle, self._heartbeat_interval_s, self._random
                )
                self._links[address] = link, asyncio.get_running_loop().create_task(link.run())

    def _settle(self, address: str, refusal: str) -> None:
        before = next(iter(self._refusals.values()), "")
        if refusal:
            self._refusals[address] = refusal
        else:
            self._refusals.pop(address, None)
        now = next(iter(self._refusals.values()), "")
        if now != before:
            self._on_refused(now)


class NamesrvLink:
    """The way to one NameServer: registers, reports, and begins again when the stream breaks."""

    def __init__(
        self,
        address: str,
        report: BrokerReport,
        transport: Transport,
        settle: Callable[[str, str], None],
        heartbeat_interval_s: float,
        rng: random.Random,
    ) -> None:
        self.address = address
        self._report = report
        self._transport = transport
        self._settle = settle
        self._heartbeat_interval_s = heartbeat_interval_s
        self._random = rng
        self._reader: Reader | None = None
        self._leaving = False
        self.accepted = False
        self.heartbeats = 0
        """How many were sent there."""

    async def run(self) -> None:
        retry_s = FIRST_RETRY_S
        while True:
            try:
                await self._register_and_report()
                problem = "the NameServer ended the stream"
            except Refused as refused:
                _logger.error("refused by a NameServer", address=self.address, reason=str(refused))
                self._settle(self.address, f"NameServer {self.address} refused this broker: {refused}")
                problem, retry_s = str(refused), REFUSED_RETRY_S
            except (RpcError, TimeoutError) as error:
                problem = str(error) or "no answer"
            except Exception:  # a broker that no NameServer knows is lost to its clients: it tries again
                _logger.exception("registering failed by a fault of this broker", address=self.address)
                problem = "a fault of this broker"
            if self._leaving:
                return
            if self.accepted:
                _logger.warning("lost a NameServer", address=self.address, reason=problem)
                self.accepted, retry_s = False, FIRST_RETRY_S
            await asyncio.sleep(retry_s * self._random.uniform(0.5, 1.0))
            retry_s = min(retry_s * 2, MAX_RETRY_S)

    def leave(self) -> bool:
        """Ends run() with a goodbye; False: the NameServer does not know this broker, so there is nobody to tell."""
        self._leaving = True
        if self._reader is not None and self.accepted:
            self._reader.news.set()
            return True
        return False

    async def _register_and_report(self) -> None:
        """Returns when the NameServer ended the stream. Raises RpcError, Refused, TimeoutError."""
        stream = self._transport.channel(self.address).bidi(registry_rpc.REGISTER)
        reader = self._report.reader()
        try:
            await stream.write(registry_pb2.RegisterRequest(full_state=reader.full_state()))
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answer = await stream.read()
            if answer is None:
                return
            _check(answer)
            if answer.HasField("accepted"):
                _logger.info("registered", address=self.address, namesrv_id=answer.accepted.namesrv_id)
                self._reader, self.accepted = reader, True
                self._settle(self.address, "")
                await self._keep_reporting(stream, reader)
        finally:
            self._reader = None
            reader.close()
            stream.cancel()

    async def _keep_reporting(self, stream: Stream, reader: Reader) -> None:
        loop = asyncio.get_running_loop()
        answers = loop.create_task(self._take_answers(stream))
        try:
            while not answers.done():
                news = loop.create_task(reader.news.wait())
                await asyncio.wait(
                    (answers, news), timeout=self._heartbeat_interval_s, return_when=asyncio.FIRST_COMPLETED
                )
                news.cancel()
                if answers.done():
                    break
                if self._leaving:
                    await stream.write(registry_pb2.RegisterRequest(goodbye=registry_pb2.Goodbye()))
                    await stream.done_writing()
                    break
                change = reader.take()
                if change is not None:
                    await stream.write(registry_pb2.RegisterRequest(change=change))
                else:
                    await stream.write(registry_pb2.RegisterRequest(heartbeat=registry_pb2.Heartbeat()))
                    self.heartbeats += 1
            await answers
        finally:
            answers.cancel()

    async def _take_answers(self, stream: Stream) -> None:
        """Ends when the stream must be opened anew. Raises RpcError, Refused."""
        answer = await stream.read()
        if answer is not None:
            _check(answer)
            # Resync: the NameServer lost track; a new stream begins with the full state.


def _check(answer: registry_pb2.RegisterResponse) -> None:
    if answer.HasField("refused"):
        raise Refused(answer.refused.reason)
