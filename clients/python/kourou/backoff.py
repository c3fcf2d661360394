"""How long to wait before another try."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2


class Backoff(ABC):
    @abstractmethod
    def delay_s(self, attempt: int) -> float:
        """The wait after the attempt of this number, from 1."""

    def jittered_s(self, attempt: int) -> float:
        """Half to all of the wait, so that many clients do not come back at the same moment."""
        return self.delay_s(attempt) * random.uniform(0.5, 1.0)


@dataclass(frozen=True)
class Exponential(Backoff):
    initial_s: float
    max_s: float
    multiplier: float = 2.0

    def delay_s(self, attempt: int) -> float:
        # The power is bounded before it overflows; no policy needs more steps to its maximum.
        return min(self.max_s, self.initial_s * self.multiplier ** min(attempt - 1, 64))


@dataclass(frozen=True)
class Steps(Backoff):
    delays_s: Sequence[float]
    """After the first attempt, the second...; the last one for all further attempts."""

    def delay_s(self, attempt: int) -> float:
        return self.delays_s[min(attempt, len(self.delays_s)) - 1]


def of_policy(policy: v2.RetryPolicy) -> Backoff | None:
    """None when the server gives no strategy that makes sense."""
    if policy.WhichOneof("strategy") == "customized_backoff":
        delays_s = [delay.ToNanoseconds() / 1e9 for delay in policy.customized_backoff.next]
        return Steps(delays_s) if delays_s else None
    curve = policy.exponential_backoff
    if curve.initial.ToNanoseconds() <= 0:
        return None
    return Exponential(curve.initial.ToNanoseconds() / 1e9, curve.max.ToNanoseconds() / 1e9, max(1.0, curve.multiplier))
