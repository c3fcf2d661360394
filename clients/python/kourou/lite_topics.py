"""The lite topics that a consumer reads: all brokers of their topic are told, and told again, as none keeps it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from kourou.client import Client
from kourou.errors import ConnectionFailed, InvalidArgument, KourouError, ServerError
from kourou.names import lite_topic_fault
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_rpc
from kourou.protocol.apache.rocketmq.v2.service_pb2 import SyncLiteSubscriptionRequest, TelemetryCommand

_log = logging.getLogger(__name__)

SYNC_INTERVAL_S = 30.0
_LOST = "notify_unsubscribe_lite_command"

OnLost = Callable[[str], object] | Callable[[str], Awaitable[object]]
"""Called with a lite topic that another member of an exclusive group has taken over."""


@dataclass(frozen=True, slots=True)
class Tail:
    """So many of the messages that the group has settled, once more, and all after them."""

    count: int


LiteStart = Literal["first", "last"] | int | Tail
"""Where the group goes on in a lite topic: with the first message there is, with the next one to come, at an offset."""


class LiteTopics:
    def __init__(self, client: Client, group: str, topic: str, on_lost: OnLost | None) -> None:
        self._client = client
        self._group = group
        self._topic = topic
        self._on_lost = on_lost
        self._names: dict[str, None] = {}
        # One after the other: all names, told while a new one is on its way, would be all but that one.
        self._telling = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._syncs: set[asyncio.Task[None]] = set()
        client.session.handlers[_LOST] = self._lost
        client.session.on_settings = self._present

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._names)

    async def subscribe(self, name: str, start: LiteStart | None) -> None:
        """Raises InvalidArgument, and what the brokers refuse it with."""
        if fault := lite_topic_fault(name):
            raise InvalidArgument(fault)
        option = _option(start)
        async with self._telling:
            with self._client.in_use():
                await self._tell(v2.PARTIAL_ADD, (name,), option)
            self._names[name] = None
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name=f"kourou lite topics of {self._topic}")

    async def unsubscribe(self, name: str) -> None:
        async with self._telling:
            if name in self._names:
                del self._names[name]
                with self._client.in_use():
                    await self._tell(v2.PARTIAL_REMOVE, (name,), None)

    async def stop(self) -> None:
        tasks = [*self._syncs, *([self._keeper] if self._keeper is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(SYNC_INTERVAL_S)
            try:
                async with self._telling:
                    await self._tell(v2.COMPLETE_ADD, self._names, None)
            except KourouError as error:
                _log.warning("the lite topics of %s could not be told: %s", self._topic, error)

    async def _tell(
        self, action: v2.LiteSubscriptionAction, names: Iterable[str], start: v2.OffsetOption | None
    ) -> None:
        """All brokers. One that is away is told later; a refusal of any of them is raised."""
        route = await self._client.routes.get(self._topic)
        # They must know of what kind we are before they can take it.
        await self._client.session.settled(route.addresses)
        self._client.session.check_accepted()
        request = self._request(action, names, start)
        outcomes = await asyncio.gather(*(self._ask(address, request) for address in sorted(route.addresses)))
        failures = [outcome for outcome in outcomes if outcome is not None]
        refusals = [failure for failure in failures if isinstance(failure, ServerError)]
        if refusals or len(failures) == len(outcomes):
            raise next(iter((*refusals, *failures)), ConnectionFailed(f"topic {self._topic} has no broker now"))

    def _request(
        self, action: v2.LiteSubscriptionAction, names: Iterable[str], start: v2.OffsetOption | None
    ) -> SyncLiteSubscriptionRequest:
        return SyncLiteSubscriptionRequest(
            action=action,
            topic=v2.Resource(name=self._topic),
            group=v2.Resource(name=self._group),
            lite_topic_set=names,
            offset_option=start,
        )

    async def _ask(self, address: str, request: SyncLiteSubscriptionRequest) -> KourouError | None:
        try:
            await self._client.wire.call(address, service_rpc.SYNC_LITE_SUBSCRIPTION, request)
        except KourouError as error:
            self._client.routes.pull_soon(self._topic)
            return error
        return None

    def _present(self, address: str) -> None:
        """A broker has answered our settings: it may be new or have started again, and know nothing of us."""
        if self._names:
            task = asyncio.create_task(self._tell_again(address))
            self._syncs.add(task)
            task.add_done_callback(self._syncs.discard)

    async def _tell_again(self, address: str) -> None:
        async with self._telling:
            error = await self._ask(address, self._request(v2.COMPLETE_ADD, self._names, None))
        if error is not None:
            _log.debug("the lite topics of %s could not be told to %s: %s", self._topic, address, error)

    async def _lost(self, command: TelemetryCommand, address: str) -> None:
        name = command.notify_unsubscribe_lite_command.lite_topic
        if name not in self._names:
            return  # another broker has told it already
        del self._names[name]
        if self._on_lost is not None:
            result = self._on_lost(name)
            if inspect.isawaitable(result):
                await result


def _option(start: LiteStart | None) -> v2.OffsetOption | None:
    """Raises InvalidArgument."""
    match start:
        case None:
            return None
        case "first":
            return v2.OffsetOption(policy=v2.OffsetOption.MIN)
        case "last":
            return v2.OffsetOption(policy=v2.OffsetOption.MAX)
        case Tail(count) if count >= 0:
            return v2.OffsetOption(tail_n=count)
        case int() if start >= 0:
            return v2.OffsetOption(offset=start)
        case _:
            raise InvalidArgument(f'a lite topic is read from "first", "last", an offset or a Tail, not {start!r}')
