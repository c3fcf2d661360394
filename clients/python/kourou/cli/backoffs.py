"""How long a message waits before it is delivered again, as a user writes it."""

from __future__ import annotations

from kourou.cli.durations import DURATION_HELP, duration, duration_text
from kourou.cli.errors import CommandError
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import CustomizedBackoff, ExponentialBackoff, RetryPolicy

BACKOFF_HELP = (
    "The wait before each further delivery: steps (10s,30s,1m; the last one goes on), or "
    "exponential:FIRST,FACTOR,MAX (exponential:1s,2,10m)."
)
_EXPONENTIAL = "exponential:"


def backoff(text: str) -> RetryPolicy:
    """Raises CommandError when it is none."""
    if text.startswith(_EXPONENTIAL):
        return RetryPolicy(exponential_backoff=_curve(text, text.removeprefix(_EXPONENTIAL).split(",")))
    if not text.strip():
        raise CommandError(f"the backoff is empty; {BACKOFF_HELP}")
    return RetryPolicy(customized_backoff=CustomizedBackoff(next=[duration(step) for step in text.split(",")]))


def _curve(text: str, parts: list[str]) -> ExponentialBackoff:
    try:
        first, factor, longest = parts
        multiplier = float(factor)
    except ValueError:
        raise CommandError(f"{text!r} is no backoff: {_EXPONENTIAL}FIRST,FACTOR,MAX, with {DURATION_HELP}") from None
    return ExponentialBackoff(initial=duration(first), multiplier=multiplier, max=duration(longest))


def backoff_text(policy: RetryPolicy) -> str:
    """`backoff` reads it back."""
    if policy.HasField("exponential_backoff"):
        curve = policy.exponential_backoff
        return f"{_EXPONENTIAL}{duration_text(curve.initial)},{curve.multiplier:g},{duration_text(curve.max)}"
    return ",".join(duration_text(step) for step in policy.customized_backoff.next)
