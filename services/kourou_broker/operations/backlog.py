"""How far the groups are behind: what they have not settled, for each group and topic that it reads here.

A broker may have ten thousand queues and dozens of groups: the walk over them gives way to the loop all the time, so
what it finds is not of one moment.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from kourou_broker.operations.delivery import Deliveries
from kourou_broker.operations.slices import in_slices
from kourou_broker.operations.store_times import StoreTimes
from kourou_broker.state import State
from kourou_broker.state.definitions import Group, Queue, Topic
from kourou_broker.state.progress import Progress
from kourou_broker.state.records import Lease
from kourou_service.clock import Clock

_PENDING_A_SLICE = 4096


@dataclass(slots=True)
class Backlog:
    group: Group
    topic: Topic
    is_lent: Callable[[Lease, int], bool]
    holds_back: Callable[[int, int, Lease], bool]
    queues: int = 0
    """How many of the topic's queues the group has read from."""
    lag: int = 0
    """Messages neither acknowledged nor gone otherwise."""
    inflight: int = 0
    """How many of them are lent now."""
    held_back: int = 0
    """How many of them wait for an older one of their message group; the others can be had."""
    oldest_ms: int | None = None
    """When the oldest of the lag was stored."""
    oldest_ready_ms: int | None = None
    """When the oldest of those was stored that can be had."""
    full_queues: int = 0
    """Queues with so much pending that the group gets nothing fresh from them."""


class Backlogs:
    def __init__(
        self, state: State, deliveries: Deliveries, times: StoreTimes, clock: Clock, *, max_pending: int
    ) -> None:
        self._state = state
        self._deliveries = deliveries
        self._times = times
        self._clock = clock
        self._max_pending = max_pending

    async def measure(self) -> list[Backlog]:
        """Of all groups and topics of which a group has progress in any queue, in the order in which they began."""
        self._times.begin()
        now_ms = self._clock.now_ms()
        found: dict[tuple[int, int], Backlog] = {}
        async for progress in in_slices(list(self._state.progress.values())):
            backlog = self._backlog_of(progress, found)
            if backlog is not None:
                await self._add(backlog, progress, now_ms)
        async for backlog in in_slices(found.values()):
            if backlog.queues < len(backlog.topic.queues):
                await self._add_unread(backlog)
        return list(found.values())

    def _backlog_of(self, progress: Progress, found: dict[tuple[int, int], Backlog]) -> Backlog | None:
        key = (progress.group, progress.topic)
        backlog = found.get(key)
        if backlog is None:
            group = self._state.groups_by_id.get(progress.group)
            topic = self._state.topics_by_id.get(progress.topic)
            if group is None or topic is None:
                return None  # deleted since the walk began
            backlog = found[key] = Backlog(
                group, topic, self._deliveries.is_lent(*key), self._deliveries.holds_back(*key)
            )
        return backlog

    async def _add(self, backlog: Backlog, progress: Progress, now_ms: int) -> None:
        backlog.queues += 1
        queue = backlog.topic.queue(progress.queue)
        fresh = queue.next_offset - progress.high
        if not fresh and not progress.pending:
            return
        backlog.lag += fresh + len(progress.pending)
        oldest = ready = progress.high if fresh else None
        if progress.pending:
            backlog.full_queues += len(progress.pending) >= self._max_pending
            oldest, oldest_due = await _look_at_pending(progress, backlog, now_ms)
            ready = oldest_due if oldest_due is not None else ready
        await self._see_age(backlog, queue, oldest, ready)

    async def _add_unread(self, backlog: Backlog) -> None:
        """A queue that the group has not read yet is read from its beginning."""
        group, topic = backlog.group, backlog.topic
        for queue in topic.queues:
            lag = queue.next_offset - queue.first_offset
            if lag and (group.id, topic.id, queue.id) not in self._state.progress:
                backlog.lag += lag
                await self._see_age(backlog, queue, queue.first_offset, queue.first_offset)

    async def _see_age(self, backlog: Backlog, queue: Queue, oldest: int | None, ready: int | None) -> None:
        """oldest, ready: the lowest offsets that are not settled, and that can be had."""
        if oldest is not None:
            backlog.oldest_ms = _earlier(backlog.oldest_ms, await self._stored_ms(queue, oldest))
        if ready is not None:
            backlog.oldest_ready_ms = _earlier(backlog.oldest_ready_ms, await self._stored_ms(queue, ready))

    async def _stored_ms(self, queue: Queue, offset: int) -> int | None:
        return self._times.known(queue, offset) or await self._times.find(queue, offset)


async def _look_at_pending(progress: Progress, backlog: Backlog, now_ms: int) -> tuple[int | None, int | None]:
    """Counts what is lent or held back. -> the lowest offset of all, the lowest of those that are neither."""
    lent_by: dict[Lease, bool] = {}
    oldest, oldest_due = None, None
    offsets, leases = list(progress.pending), list(progress.pending.values())
    for start in range(0, len(offsets), _PENDING_A_SLICE):
        if start:
            await asyncio.sleep(0)
        end = start + _PENDING_A_SLICE
        for offset, lease in zip(offsets[start:end], leases[start:end], strict=True):
            if oldest is None or offset < oldest:
                oldest = offset
            is_out = lent_by.get(lease)
            if is_out is None:
                is_out = lent_by[lease] = backlog.is_lent(lease, now_ms)
            if is_out:
                backlog.inflight += 1
            elif lease.holds_back and backlog.holds_back(progress.queue, offset, lease):
                backlog.held_back += 1
            elif oldest_due is None or offset < oldest_due:
                oldest_due = offset
    return oldest, oldest_due


def _earlier(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else min(one, other)
