"""Batching without added delay, as a log's group commit does it: messages that come while frames are under way wait,
and share the next one. Nobody waits for company: a message that comes alone leaves at the end of the same turn of the
loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import accumulate

from kourou.client import Client
from kourou.course import Course, OrderedCourse
from kourou.delivery import Delivery
from kourou.errors import ClosedError, InvalidRequest, KourouError, TimeoutExceeded
from kourou.frame import Bulk, Filling, Frame, Kind, Limits, Single
from kourou.memory import Memory
from kourou.message import MessageType
from kourou.outbox import Outbox
from kourou.results import Outcome
from kourou.route import Queue

_FRAMES_OF_A_BROKER = 4
"""Under way at the same time: one is being stored, one has been answered, and two are on the way."""
_TRANSACTIONS_OF_A_BROKER = 64
_MAX_APART = 64
"""Requests to find out which messages of a frame are at fault."""


class Lane:
    """Messages of one kind, in the order of their arrival. Where order matters, one frame at a time is under way: the
    next one leaves when nothing of the one before can come after it."""

    def __init__(
        self, kind: Kind, client: Client, outbox: Outbox, memory: Memory, on_idle: Callable[[], object]
    ) -> None:
        """`memory`: what single messages are counted in until their end. `on_idle`: nothing waits or is under way."""
        self._kind = kind
        self._client = client
        self._outbox = outbox
        self._delivery = Delivery(client, outbox)
        self._memory = memory
        self._on_idle = on_idle
        self._alone = kind.type is MessageType.TRANSACTION
        self._of_a_broker = _TRANSACTIONS_OF_A_BROKER if self._alone else _FRAMES_OF_A_BROKER
        # At random: producers that start together do not meet at the same queue.
        self._turn = random.randrange(1 << 16)
        self._waiting: deque[Single | Bulk] = deque()
        self._under_way: dict[Frame, asyncio.Task[None]] = {}
        self._flush_due = False
        self._loop = asyncio.get_running_loop()
        self.now_s = self._loop.time
        self._timer: asyncio.TimerHandle | None = None
        self._next_deadline_s = float("inf")

    def put(self, parcel: Single | Bulk) -> None:
        """When its future is cancelled before it has left, it never does."""
        self._waiting.append(parcel)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        if type(parcel) is Single and parcel.deadline_s < self._next_deadline_s:
            self._watch(parcel.deadline_s)

    async def close(self) -> None:
        """Everything that waits or is under way ends with ClosedError."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        closed = ClosedError("the client was closed meanwhile")
        for frame in self._under_way:
            self._settle(frame, [closed] * len(frame.messages))
        self._under_way.clear()
        while self._waiting:
            parcel = self._waiting.popleft()
            if not parcel.future.done():
                parcel.future.set_exception(closed)
            self._forget(parcel)
        if self._timer is not None:
            self._timer.cancel()

    # Leaving.

    def _flush(self) -> None:
        self._flush_due = False
        while self._waiting:
            course = self._new_course()
            found, queue = self._next_queue(course)
            if not found:
                break
            frame = self._take(course, self._limits(queue))
            if frame is None:
                break
            self._turn += 1
            frame.address = "" if queue is None else queue.address
            self._under_way[frame] = self._loop.create_task(self._run(frame, queue))
        if not self._waiting and not self._under_way:
            if self._timer is not None:
                self._timer.cancel()
                self._timer, self._next_deadline_s = None, float("inf")
            self._on_idle()

    def _new_course(self) -> Course:
        if self._kind.in_order:
            return OrderedCourse(self._kind.topic, str(self._kind.of))
        return Course(self._kind.topic, self._turn)

    def _next_queue(self, course: Course) -> tuple[bool, Queue | None]:
        """Whether another frame may leave, and to which queue; None: that shows when there is a route."""
        if self._kind.in_order and self._under_way:
            return False, None
        busy = Counter(frame.address for frame in self._under_way)
        route = self._client.routes.known(self._kind.topic)
        if route is None or not route.writable:
            return not busy[""], None
        full = {address for address, count in busy.items() if count >= self._of_a_broker}
        if full and all(queue.address in full for queue in route.writable):
            return False, None
        return True, course.next_queue(route, full)

    def _limits(self, queue: Queue | None) -> Limits:
        limits = self._outbox.limits("" if queue is None else queue.address)
        return limits._replace(max_count=1) if self._alone else limits

    def _take(self, course: Course, limits: Limits) -> Frame | None:
        """Of what waits, as much as fits."""
        filling = Filling(limits, self._loop.time())
        waiting = self._waiting
        while waiting and filling.has_room:
            parcel = waiting[0]
            if parcel.is_over:
                self._forget(waiting.popleft())
            elif not filling.add(parcel):
                break
            elif not parcel.has_rest:
                waiting.popleft()
            elif not self._kind.in_order:
                waiting.rotate(-1)  # the others have their turn
        return filling.frame(self._kind, course)

    # Arriving.

    async def _run(self, frame: Frame, queue: Queue | None) -> None:
        outcomes: Sequence[Outcome]
        try:
            outcomes = await self._delivery.deliver(frame, queue)
        except InvalidRequest as error:
            outcomes = await self._apart(frame, error)
        except KourouError as error:
            outcomes = [error] * len(frame.messages)
        except Exception as fault:
            outcomes = [KourouError(f"a fault of the client: {fault!r}")] * len(frame.messages)
            self._loop.call_exception_handler({"message": "sending failed", "exception": fault})
        del self._under_way[frame]
        self._settle(frame, outcomes)
        self._flush()

    async def _apart(self, frame: Frame, error: InvalidRequest) -> Sequence[Outcome]:
        """Some messages are at fault, and the broker stored none: the others must not suffer, and keep their order. By
        halves, so that one of many is found soon; where order matters by callers, as each means its own in order."""
        outcomes: list[Outcome] = [error] * len(frame.messages)
        whole = range(len(frame.messages))
        parts = deque(_by_share(frame) if self._kind.in_order else _halves(whole))
        if whole in parts:
            return outcomes
        for _ in range(_MAX_APART):
            if not parts:
                break
            places = parts.popleft()
            part = frame.part(places, self._new_course())
            try:
                outcomes[places.start : places.stop] = await self._delivery.deliver(part, None)
            except InvalidRequest as fault:
                outcomes[places.start : places.stop] = [fault] * len(places)
                if not self._kind.in_order:
                    parts.extendleft(reversed(_halves(places)))
            except KourouError as fault:
                outcomes[places.start : places.stop] = [fault] * len(places)
        return outcomes

    def _settle(self, frame: Frame, outcomes: Sequence[Outcome]) -> None:
        place = 0
        for parcel, start, count in frame.shares:
            if type(parcel) is Single:
                if not parcel.future.done():
                    _tell(parcel, outcomes[place])
                self._memory.release(parcel.message)
            elif isinstance(parcel, Bulk):
                part = outcomes[place : place + count]
                parcel.settle(start, part)
                if self._kind.in_order:
                    failure = next((outcome for outcome in part if isinstance(outcome, KourouError)), None)
                    if failure is not None:
                        parcel.give_up(failure)
            place += count

    def _forget(self, parcel: Single | Bulk) -> None:
        if type(parcel) is Single:
            self._memory.release(parcel.message)

    # Too late.

    def _watch(self, deadline_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_deadline_s = deadline_s
        self._timer = self._loop.call_at(deadline_s, self._expire)

    def _expire(self) -> None:
        now_s = self._loop.time()
        self._timer, self._next_deadline_s = None, float("inf")
        rest_s = self._next_deadline_s
        for parcel, late in self._unsettled():
            if parcel.deadline_s > now_s:
                rest_s = min(rest_s, parcel.deadline_s)
            elif not parcel.future.done():
                parcel.future.set_exception(late())
        if rest_s < self._next_deadline_s:
            self._watch(rest_s)

    def _unsettled(self) -> list[tuple[Single, Callable[[], KourouError]]]:
        """Each with what its caller is told when it is too late."""
        waiting = [(parcel, self._too_late_to_leave) for parcel in self._waiting if isinstance(parcel, Single)]
        under_way = [
            (parcel, frame.course.too_late)
            for frame in self._under_way
            for parcel, _, _ in frame.shares
            if isinstance(parcel, Single)
        ]
        return under_way + waiting

    def _too_late_to_leave(self) -> KourouError:
        if self._client.routes.known(self._kind.topic) is None:
            return Course(self._kind.topic, 0).too_late()
        of = f"{self._kind.of!r} of topic" if self._kind.in_order else "topic"
        return TimeoutExceeded(f"{of} {self._kind.topic}: not sent in time behind older messages")


def _tell(parcel: Single, outcome: Outcome) -> None:
    try:
        if isinstance(outcome, KourouError):
            parcel.future.set_exception(outcome)
        else:
            parcel.future.set_result(outcome)
    except concurrent.futures.InvalidStateError:
        """Cancelled by its thread at this very moment."""


def _halves(places: range) -> list[range]:
    """None of a single place."""
    if len(places) < 2:
        return []
    middle = places.start + len(places) // 2
    return [range(places.start, middle), range(middle, places.stop)]


def _by_share(frame: Frame) -> list[range]:
    ends = list(accumulate((count for _, _, count in frame.shares), initial=0))
    return list(map(range, ends, ends[1:]))
