"""Where the tries of one delivery go, and when the next one is.

Round-robin over the writable queues. While the outcome of a try is unknown, the same broker is asked once more: if it
has the message already, both copies are where it can tell by the id. Otherwise the next try goes to another broker, or
to another queue if there is only one. Where order matters, all tries go to one queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from tenacity import AsyncRetrying, RetryCallState

from kourou.backoff import Backoff
from kourou.errors import (
    PASSING,
    ConnectionFailed,
    Forbidden,
    KourouError,
    ServerFailure,
    TimeoutExceeded,
)
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.route import Queue, Route

_OUTCOME_UNKNOWN = (TimeoutExceeded, ServerFailure)
_MAX_REFUSALS = 3
"""FORBIDDEN from that many queues, and from every broker, is the answer."""


class Course:
    def __init__(self, topic: str, turn: int) -> None:
        self.topic = topic
        self._turn = turn
        self._queue: Queue | None = None
        self._stay = False
        self._avoided: set[str] = set()
        self._refusals = 0
        self._elsewhere = False
        self._maybe_stored = False

    def next_queue(self, route: Route, busy: Collection[str] = ()) -> Queue:
        """`busy`: addresses that are better left alone now. Raises Forbidden when the topic has no writable queue."""
        queues = route.writable
        if not queues:
            self._elsewhere = False
            text = f"topic {route.topic} has no queue that takes messages now; `kourou route {route.topic}` shows them"
            raise Forbidden(v2.FORBIDDEN, text)
        if self._stay and self._queue is not None:
            queues = [queue for queue in queues if queue.address == self._queue.address] or queues
        else:
            queues = [queue for queue in queues if queue.address not in self._avoided] or queues
            if busy:
                queues = [queue for queue in queues if queue.address not in busy] or queues
        self._queue = queues[self._turn % len(queues)]
        self._turn += 1
        return self._queue

    def failed(self, error: KourouError, route: Route) -> None:
        """What the try to the last queue came to."""
        assert self._queue is not None
        unknown = isinstance(error, _OUTCOME_UNKNOWN)
        self._maybe_stored |= unknown
        self._stay = unknown and not self._stay
        if not self._stay:
            self._avoided.add(self._queue.address)
        self._elsewhere = any(queue.address not in self._avoided for queue in route.writable)
        self._refusals += isinstance(error, Forbidden)

    def ends_with(self, error: BaseException | None) -> bool:
        """No further try would help."""
        if isinstance(error, Forbidden):
            return self._queue is None or (self._refusals >= _MAX_REFUSALS and not self._elsewhere)
        return not isinstance(error, PASSING)

    def verdict(self, last_error: KourouError) -> KourouError:
        """What the caller is told: after a try with an unknown outcome, no later error means that nothing is stored."""
        if not self._maybe_stored or isinstance(last_error, TimeoutExceeded):
            return last_error
        return TimeoutExceeded(f"the message may be stored or not; the last try: {last_error}")

    def too_late(self) -> KourouError:
        """What the caller is told when the time is over in the middle of a try."""
        if self._queue is None:
            return ConnectionFailed(f"no NameServer told the route of {self.topic} in time")
        return TimeoutExceeded(f"broker {self._queue.broker} at {self._queue.address} did not answer in time")

    def moves_on_at_once(self, error: BaseException | None) -> bool:
        """The next try goes where nothing says that it will fail like this one."""
        return self._elsewhere and not self._stay and isinstance(error, ConnectionFailed | Forbidden)


class OrderedCourse(Course):
    """Of messages whose order matters: all tries go to the one queue that has the other messages of their group."""

    def __init__(self, topic: str, group: str) -> None:
        super().__init__(topic, 0)
        self._group = group

    def next_queue(self, route: Route, busy: Collection[str] = ()) -> Queue:
        """Raises Forbidden when that queue takes no messages any more."""
        if self._queue is None:
            self._queue = route.queue_of_group(self._group)
            return self._queue or super().next_queue(route)
        # By its name: a broker that restarts may be back at another address.
        place = self._queue.broker, self._queue.id
        queue = next((queue for queue in route.writable if (queue.broker, queue.id) == place), None)
        if queue is None:
            raise Forbidden(v2.FORBIDDEN, "the route no longer has its queue")
        self._queue = queue
        return queue

    def failed(self, error: KourouError, route: Route) -> None:
        self._maybe_stored |= isinstance(error, _OUTCOME_UNKNOWN)

    def ends_with(self, error: BaseException | None) -> bool:
        return isinstance(error, Forbidden) or super().ends_with(error)

    def verdict(self, last_error: KourouError) -> KourouError:
        if isinstance(last_error, Forbidden) and self._queue is not None:
            text = (
                f"{self._group!r} of topic {self.topic} has its place on broker {self._queue.broker}, which takes no"
                f" messages now ({last_error.message}); elsewhere they could be delivered before older ones"
            )
            last_error = Forbidden(last_error.code, text)
        return super().verdict(last_error)


def tries(course: Course, wait: Backoff, deadline_s: float) -> AsyncRetrying:
    """Until one succeeds, nothing can help, or the next try would begin after the deadline (in the loop's time)."""
    loop = asyncio.get_running_loop()

    def error_of(state: RetryCallState) -> BaseException | None:
        return state.outcome.exception() if state.outcome else None

    def wait_s(state: RetryCallState) -> float:
        return 0.0 if course.moves_on_at_once(error_of(state)) else wait.jittered_s(state.attempt_number)

    return AsyncRetrying(
        retry=lambda state: error_of(state) is not None and not course.ends_with(error_of(state)),
        wait=wait_s,
        stop=lambda state: loop.time() + state.upcoming_sleep >= deadline_s,
        reraise=True,
    )
