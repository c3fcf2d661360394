"""A push consumer's share of its group's messages by the stream door: a stream for each topic and broker. Which queues
belong to this client, the broker knows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from kourou.assigned import AssignedQueues
from kourou.client import Client
from kourou.consume_stream import Terms
from kourou.consumption import Consumption
from kourou.errors import PASSING, ConnectionFailed, KourouError
from kourou.fed_stream import FedStream
from kourou.filters import Filter
from kourou.listening import Listening
from kourou.route import Route

_log = logging.getLogger(__name__)

ROUTE_CHECK_INTERVAL_S = 5.0
_OPENING_TIMEOUT_S = 3.0
_SETTLING_TIMEOUT_S = 3.0


class StreamedQueues:
    """Brokers without the stream door are polled, as AssignedQueues does it."""

    def __init__(
        self,
        client: Client,
        group: str,
        subscriptions: Mapping[str, Filter],
        listening: Listening,
        consumption: Consumption,
    ) -> None:
        self._client = client
        self._group = group
        self._subscriptions = subscriptions
        self._listening = listening
        self._consumption = consumption
        self._streams: dict[tuple[str, str], FedStream] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._polled = AssignedQueues(client, group, subscriptions, consumption)
        self._is_polling = False

    async def start(self) -> None:
        """Raises what stands in the way now, such as TopicNotFound; later troubles are logged and overcome."""
        for topic in self._subscriptions:
            await self._follow(topic)
        await self._client.session.settled({address for _, address in await self._brokers()})
        self._client.session.check_accepted()
        await self._check_opened()
        await self._poll_where_needed()
        self._keepers = [asyncio.create_task(self._keep())]

    async def stop(self) -> None:
        """No more messages; what still comes goes to others when the client says goodbye."""
        tasks = [*self._keepers, *(stream.feeding for stream in self._streams.values())]
        for stream in self._streams.values():
            stream.is_stopped = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._polled.stop()

    async def close(self) -> None:
        """Settles what the listener is done with, within a time-out."""
        try:
            async with asyncio.timeout(_SETTLING_TIMEOUT_S):
                await asyncio.gather(*(stream.consume.settling.drain() for stream in self._streams.values()))
        except TimeoutError:
            _log.warning("not everything that was consumed could be settled; it will come again")
        await self._polled.close()
        await asyncio.gather(*(stream.consume.close() for stream in self._streams.values()))

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(ROUTE_CHECK_INTERVAL_S)
            try:
                for topic in self._subscriptions:
                    await self._follow(topic)
                await self._poll_where_needed()
            except KourouError as error:
                _log.warning("the brokers stay as they were: %s", error)
            except Exception:
                _log.exception("the brokers stay as they were")

    async def _poll_where_needed(self) -> None:
        has_stream = self._client.doors.has_stream
        if not self._is_polling and not all(has_stream(address) for _, address in await self._brokers()):
            await self._polled.start()
            self._is_polling = True

    async def _follow(self, topic: str) -> None:
        route = await self._client.routes.get(topic)
        brokers = {queue.broker for queue in route.readable_brokers() if self._client.doors.has_stream(queue.address)}
        for broker in brokers:
            if (topic, broker) not in self._streams:
                self._streams[topic, broker] = self._open(route, broker)
        for key, stream in list(self._streams.items()):
            # One that holds messages still has to settle them.
            if key[0] == topic and key[1] not in brokers and not stream.consume.leases.held(0.0):
                del self._streams[key]
                stream.feeding.cancel()
                await stream.consume.close()

    def _open(self, route: Route, broker: str) -> FedStream:
        terms = Terms(self._subscriptions[route.topic], None)
        return FedStream(self._client, self._group, route.topic, broker, terms, self._listening, self._consumption)

    async def _brokers(self) -> set[tuple[str, str]]:
        routes = [await self._client.routes.get(topic) for topic in self._subscriptions]
        return {(queue.broker, queue.address) for route in routes for queue in route.readable_brokers()}

    async def _check_opened(self) -> None:
        """Raises what a broker refuses, and why none could be reached."""
        streams = list(self._streams.values())
        if streams:
            await asyncio.wait([stream.opened for stream in streams], timeout=_OPENING_TIMEOUT_S)
        errors = [
            stream.opened.result() if stream.opened.done() else ConnectionFailed(f"{stream.consume.broker} is silent")
            for stream in streams
        ]
        for error in errors:
            if isinstance(error, KourouError) and not isinstance(error, PASSING):
                raise error
        if errors and all(isinstance(error, KourouError) for error in errors):
            raise next(error for error in errors if error is not None)
