"""The settings a client gets for the settings it sent: the same at a NameServer and at a broker.

What each official client understands of a retry policy differs, so its answer fits its language.
"""

import math
from dataclasses import dataclass

from kourou.limits import DEFAULT_LITE_QUOTA, MAX_BODY_BYTES, MAX_LITE_TOPIC_CHARS
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2
from kourou.protocol.google.protobuf import duration_pb2
from kourou_service.lite_rules import LITE_CONSUMERS

RECEIVE_BATCH_SIZE = 32
LONG_POLLING_TIMEOUT_S = 20

DEFAULT_MAX_ATTEMPTS = 16
DEFAULT_BACKOFF_S = (10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200)

_SEND_ATTEMPTS = 3
_SEND_FIRST_BACKOFF_MS, _SEND_MAX_BACKOFF_MS, _SEND_MULTIPLIER = 10, 1000, 2.0
# An exponential policy is spelled out to at most this many steps for those who know no exponents.
_MAX_STEPS = 64


@dataclass(frozen=True)
class GroupFacts:
    """What the answer says of the consumer group. A NameServer knows no groups and gives the defaults."""

    retry: v2.RetryPolicy
    fifo: bool = False
    lite_subscription_quota: int = DEFAULT_LITE_QUOTA


def default_retry(max_attempts: int = DEFAULT_MAX_ATTEMPTS) -> v2.RetryPolicy:
    """RocketMQ's classic steps."""
    steps = [duration_pb2.Duration(seconds=seconds) for seconds in DEFAULT_BACKOFF_S]
    return v2.RetryPolicy(max_attempts=max_attempts, customized_backoff=v2.CustomizedBackoff(next=steps))


def settings_answer(asked: v2.Settings, group: GroupFacts | None = None) -> service_pb2.TelemetryCommand:
    """The command that answers a client's settings; `group` is the consumer's, None where it is not known."""
    settings = v2.Settings()
    settings.CopyFrom(asked)
    # Nobody here takes metrics of clients; what one was told before ends with that.
    settings.ClearField("metric")
    if settings.HasField("publishing"):
        settings.publishing.max_body_size = MAX_BODY_BYTES
        settings.publishing.validate_message_type = True
        settings.backoff_policy.CopyFrom(_send_retry())
    elif settings.HasField("subscription"):
        facts = group or GroupFacts(default_retry())
        settings.subscription.fifo = facts.fifo
        settings.subscription.receive_batch_size = RECEIVE_BATCH_SIZE
        settings.subscription.long_polling_timeout.seconds = LONG_POLLING_TIMEOUT_S
        if settings.client_type in LITE_CONSUMERS:  # some clients take no names before they have been told
            settings.subscription.lite_subscription_quota = facts.lite_subscription_quota
            settings.subscription.max_lite_topic_size = MAX_LITE_TOPIC_CHARS
        settings.backoff_policy.CopyFrom(retry_for(asked.user_agent.language, facts.retry))
    return service_pb2.TelemetryCommand(status=v2.Status(code=v2.OK, message="OK"), settings=settings)


def retry_for(language: v2.Language, retry: v2.RetryPolicy) -> v2.RetryPolicy:
    """The policy in the form that the client in this language honours."""
    if language == v2.NODE_JS:
        return _exponential(retry)
    if language == v2.PYTHON:
        return _in_whole_seconds(retry)
    return retry


def _send_retry() -> v2.RetryPolicy:
    backoff = v2.ExponentialBackoff(multiplier=_SEND_MULTIPLIER)
    backoff.initial.FromMilliseconds(_SEND_FIRST_BACKOFF_MS)
    backoff.max.FromMilliseconds(_SEND_MAX_BACKOFF_MS)
    return v2.RetryPolicy(max_attempts=_SEND_ATTEMPTS, exponential_backoff=backoff)


def _exponential(retry: v2.RetryPolicy) -> v2.RetryPolicy:
    steps = retry.customized_backoff.next
    if not steps:
        return retry
    backoff = v2.ExponentialBackoff(initial=steps[0], max=max(steps, key=_seconds), multiplier=2.0)
    return v2.RetryPolicy(max_attempts=retry.max_attempts, exponential_backoff=backoff)


def _in_whole_seconds(retry: v2.RetryPolicy) -> v2.RetryPolicy:
    steps_s = [_seconds(step) for step in retry.customized_backoff.next]
    if retry.HasField("exponential_backoff"):
        backoff = retry.exponential_backoff
        longest_s = _seconds(backoff.max)
        steps_s = [_seconds(backoff.initial)]
        while len(steps_s) < min(retry.max_attempts, _MAX_STEPS) and steps_s[-1] < longest_s:
            steps_s.append(min(longest_s, steps_s[-1] * max(backoff.multiplier, 1.0)))
    whole = [duration_pb2.Duration(seconds=math.ceil(step_s)) for step_s in steps_s]
    return v2.RetryPolicy(max_attempts=retry.max_attempts, customized_backoff=v2.CustomizedBackoff(next=whole))


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
