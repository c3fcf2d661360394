"""A push consumer's share of its group's messages: the brokers assign queues, and each has one long poll."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from functools import partial

from kourou.backoff import Exponential
from kourou.client import Client
from kourou.consumption import Consumption
from kourou.errors import ConnectionFailed, KourouError
from kourou.filters import Filter
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.receiving import Poll, new_attempt_id, receive
from kourou.route import Queue, endpoints_of, queue_of

_log = logging.getLogger(__name__)

ASSIGNMENT_INTERVAL_S = 5.0
_AGAIN = Exponential(initial_s=0.1, max_s=5.0)


class AssignedQueues:
    def __init__(
        self, client: Client, group: str, subscriptions: Mapping[str, Filter], consumption: Consumption
    ) -> None:
        """Of brokers that have the stream door, no queue is polled."""
        self._client = client
        self._group = group
        self._subscriptions = subscriptions
        self._consumption = consumption
        self._assigned: dict[str, frozenset[Queue]] = {}
        self._polls: dict[Queue, asyncio.Task[None]] = {}
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Raises what stands in the way now, such as TopicNotFound; later troubles are logged and overcome."""
        for topic in self._subscriptions:
            await self._assign(topic)
        self._client.session.check_accepted()
        self._keepers = [asyncio.create_task(self._keep(topic)) for topic in self._subscriptions]

    async def stop(self) -> None:
        """Ends the polls; what they still bring goes to others when the client says goodbye."""
        self._assigned.clear()
        self._consumption.close()
        tasks = [*self._keepers, *self._polls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Settles what the listener is done with, within a time-out."""
        await self._consumption.settle()

    async def _keep(self, topic: str) -> None:
        while True:
            await asyncio.sleep(ASSIGNMENT_INTERVAL_S)
            try:
                await self._assign(topic)
            except KourouError as error:
                _log.warning("no new assignment of %s, the last one stays: %s", topic, error)
            except Exception:
                _log.exception("no new assignment of %s, the last one stays", topic)

    async def _assign(self, topic: str) -> None:
        route = await self._client.routes.get(topic)
        # A broker assigns queues to the members that it knows, so it has to know us first.
        await self._client.session.settled(route.addresses)
        answered = await self._ask_any(topic, sorted(route.addresses))
        queues = frozenset(queue for queue in answered if not self._client.doors.has_stream(queue.address))
        self._assigned[topic] = queues
        for queue in queues - self._polls.keys():
            poll = self._polls[queue] = asyncio.create_task(self._poll(queue), name=f"kourou poll {queue}")
            poll.add_done_callback(partial(self._ended, queue))

    async def _ask_any(self, topic: str, addresses: list[str]) -> frozenset[Queue]:
        """All brokers answer alike; the answer is the whole truth."""
        random.shuffle(addresses)
        last_error: KourouError = ConnectionFailed(f"topic {topic} has no broker now")
        for address in addresses:
            request = service_pb2.QueryAssignmentRequest(
                topic=v2.Resource(name=topic), group=v2.Resource(name=self._group), endpoints=endpoints_of(address)
            )
            try:
                answer = await self._client.wire.call(address, service_rpc.QUERY_ASSIGNMENT, request)
            except KourouError as error:
                last_error = error
                self._client.routes.pull_soon(topic)
            else:
                return frozenset(queue_of(assignment.message_queue) for assignment in answer.message.assignments)
        raise last_error

    def _ended(self, queue: Queue, poll: asyncio.Task[None]) -> None:
        del self._polls[queue]

    async def _poll(self, queue: Queue) -> None:
        # A poll is never cancelled while this client lives: what it may just have been given would stay leased to us.
        # The broker ends the poll of a queue that was taken from us.
        failures, attempt_id = 0, new_attempt_id()
        while queue in self._assigned.get(queue.topic, ()):
            await self._consumption.room(queue.address)
            try:
                messages = await receive(self._client.wire, self._next_poll(queue), attempt_id)
            except KourouError as error:
                failures += 1
                _log.log(logging.WARNING if failures == 3 else logging.DEBUG, "polling %s failed: %s", queue, error)
                self._client.routes.pull_soon(queue.topic)
                await asyncio.sleep(_AGAIN.jittered_s(failures))
                continue
            failures, attempt_id = 0, new_attempt_id()
            if messages:
                self._consumption.take(messages)

    def _next_poll(self, queue: Queue) -> Poll:
        prescribed = self._client.session.broker_settings
        return Poll(
            self._group,
            queue,
            self._subscriptions[queue.topic],
            prescribed.receive_batch_size,
            prescribed.long_polling_timeout_s,
            invisible_duration_s=None,
        )
