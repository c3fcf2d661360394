"""What becomes of messages that came through the stream door, gathered into few requests."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

from kourou.backoff import Exponential
from kourou.errors import PASSING, InvalidReceiptHandle, KourouError, error_of_status
from kourou.leases import Leases, Lent
from kourou.protocol.kourou.stream.v1 import stream_pb2

_log = logging.getLogger(__name__)

_MAX_SETTLEMENTS = 512
"""Of a request."""
_MAX_IN_FLIGHT = 2
_AGAIN = Exponential(initial_s=0.05, max_s=5.0)


class Asked:
    """What is to become of some messages of one lease."""

    __slots__ = ("after_s", "done", "is_dead", "lent", "new_lease", "offsets", "patient", "tries")

    def __init__(
        self,
        lent: Lent,
        offsets: list[int],
        *,
        after_s: float | None = None,
        is_dead: bool = False,
        patient: bool = True,
    ) -> None:
        """Acknowledged, unless they are to come again after some time, or are dead letters. `patient`: for as long as
        it takes."""
        self.lent = lent
        self.offsets = offsets
        self.after_s = after_s
        self.is_dead = is_dead
        self.patient = patient
        self.tries = 0
        self.new_lease: stream_pb2.Lease | None = None
        """What holds messages that are to come again."""
        self.done: asyncio.Future[KourouError | None] = asyncio.get_running_loop().create_future()

    def wire(self) -> stream_pb2.Settlement:
        settlement = stream_pb2.Settlement(lease=self.lent.lease, ranges=ranges_of(self.offsets))
        if self.is_dead:
            settlement.dead_letter.SetInParent()
        elif self.after_s is None:
            settlement.acknowledged.SetInParent()
        else:
            settlement.again_after.FromTimedelta(timedelta(seconds=self.after_s))
        return settlement


class Settling:
    """Of one Consume stream. What comes while requests are under way shares the next one. What a stream that broke
    did not answer is asked again by the next one."""

    def __init__(self, leases: Leases, on_news: Callable[[], None]) -> None:
        """`on_news`: there may be a request to write."""
        self._leases = leases
        self._on_news = on_news
        self._acks: dict[Lent, Asked] = {}
        self._others: deque[Asked] = deque()
        self._in_flight: dict[int, list[Asked]] = {}
        self._numbers = itertools.count(1)
        self._later: set[asyncio.TimerHandle] = set()
        self.unsettled_count = 0
        self._settled = asyncio.Event()

    def acknowledge(self, lent: Lent, offset: int) -> asyncio.Future[KourouError | None]:
        """Done when it is settled, together with others of the lease."""
        asked = self._acks.get(lent)
        if asked is None:
            asked = self._acks[lent] = Asked(lent, [])
            self._on_news()
        asked.offsets.append(offset)
        self.unsettled_count += 1
        return asked.done

    def acknowledge_all(self, lent: Lent, offsets: Sequence[int]) -> None:
        """Many of one lease."""
        asked = self._acks.get(lent)
        if asked is None:
            asked = self._acks[lent] = Asked(lent, [])
            self._on_news()
        asked.offsets += offsets
        self.unsettled_count += len(offsets)

    def settle(self, asked: Asked) -> asyncio.Future[KourouError | None]:
        """Done when it is settled, or cannot be."""
        self.unsettled_count += len(asked.offsets)
        self._others.append(asked)
        self._on_news()
        return asked.done

    def lent_anew(self, asked: Asked) -> Lent:
        """What holds messages that are to come again; without a new lease, what held them before."""
        if asked.new_lease is None:
            return asked.lent
        ends_s = asyncio.get_running_loop().time() + (asked.after_s or 0.0)
        return self._leases.take(asked.new_lease, len(asked.offsets), self, ends_s)

    def next_request(self) -> stream_pb2.ConsumeRequest | None:
        """What is to be written now."""
        if len(self._in_flight) >= _MAX_IN_FLIGHT or not (self._acks or self._others):
            return None
        share: list[Asked] = []
        while self._others and len(share) < _MAX_SETTLEMENTS:
            share.append(self._others.popleft())
        while self._acks and len(share) < _MAX_SETTLEMENTS:
            share.append(self._acks.pop(next(iter(self._acks))))
        number = next(self._numbers)
        self._in_flight[number] = share
        settle = stream_pb2.Settle(number=number, settlements=[asked.wire() for asked in share])
        return stream_pb2.ConsumeRequest(settle=settle)

    def take(self, settled: stream_pb2.Settled) -> None:
        """An answer."""
        share = self._in_flight.pop(settled.number, [])
        statuses = settled.results if len(settled.results) == len(share) else [settled.status] * len(share)
        leases = iter(settled.leases)
        for asked, status in zip(share, statuses, strict=True):
            error = error_of_status(status)
            if error is None and asked.after_s is not None:
                asked.new_lease = next(leases, None)
            self._ended(asked, error)
        self._on_news()

    def lost(self) -> None:
        """The stream broke: what it did not answer is asked again."""
        for share in reversed(self._in_flight.values()):
            self._others.extendleft(reversed(share))
        self._in_flight.clear()

    async def room(self, max_count: int) -> None:
        """Returns when fewer messages are unsettled."""
        while self.unsettled_count >= max_count:
            self._settled.clear()
            await self._settled.wait()

    async def drain(self) -> None:
        """Returns when everything is settled."""
        await self.room(1)

    def close(self) -> None:
        for timer in self._later:
            timer.cancel()
        for asked in [*self._acks.values(), *self._others, *itertools.chain.from_iterable(self._in_flight.values())]:
            asked.done.cancel()

    def _ended(self, asked: Asked, error: KourouError | None) -> None:
        if error is not None and asked.patient and isinstance(error, PASSING):
            asked.tries += 1
            _log.debug("not settled yet: %s", error)
            loop = asyncio.get_running_loop()
            timer = loop.call_later(_AGAIN.jittered_s(asked.tries), lambda: self._again(asked, timer))
            self._later.add(timer)
            return
        if error is not None and asked.patient:
            level = logging.DEBUG if isinstance(error, InvalidReceiptHandle) else logging.WARNING
            _log.log(level, "%d messages were not settled: %s", len(asked.offsets), error)
        self.unsettled_count -= len(asked.offsets)
        self._settled.set()
        if error is None or asked.patient or isinstance(error, InvalidReceiptHandle):
            self._leases.settled(asked.lent, len(asked.offsets))
        if not asked.done.done():
            asked.done.set_result(error)

    def _again(self, asked: Asked, timer: asyncio.TimerHandle) -> None:
        self._later.discard(timer)
        self._others.append(asked)
        self._on_news()


def ranges_of(offsets: Iterable[int]) -> list[stream_pb2.OffsetRange]:
    """As few as say the same."""
    ranges: list[stream_pb2.OffsetRange] = []
    first = last = -2
    for offset in sorted(set(offsets)):
        if offset != last + 1:
            if last >= 0:
                ranges.append(stream_pb2.OffsetRange(first=first, count=last - first + 1))
            first = offset
        last = offset
    if last >= 0:
        ranges.append(stream_pb2.OffsetRange(first=first, count=last - first + 1))
    return ranges
