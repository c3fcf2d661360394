"""Settings answered to clients, each language as it understands them."""

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.google.protobuf import duration_pb2
from kourou_service.client_settings import GroupFacts, default_retry, retry_for, settings_answer


def test_producers():
    asked = v2.Settings(
        client_type=v2.PRODUCER,
        publishing=v2.Publishing(topics=[v2.Resource(name="orders")]),
        request_timeout=duration_pb2.Duration(seconds=3),
        metric=v2.Metric(on=True),
    )
    answer = settings_answer(asked)
    assert answer.status.code == v2.OK
    settings = answer.settings
    assert settings.client_type == v2.PRODUCER
    assert settings.request_timeout.seconds == 3
    assert [topic.name for topic in settings.publishing.topics] == ["orders"]
    assert settings.publishing.max_body_size == 4 * 1024 * 1024
    assert settings.publishing.validate_message_type
    backoff = settings.backoff_policy.exponential_backoff
    assert settings.backoff_policy.max_attempts == 3
    assert (backoff.initial.ToMilliseconds(), backoff.max.ToMilliseconds(), backoff.multiplier) == (10, 1000, 2)
    assert not settings.HasField("metric")  # Python's client ends its reader on it


def test_consumers():
    asked = v2.Settings(client_type=v2.PUSH_CONSUMER, subscription=v2.Subscription(group=v2.Resource(name="group")))
    settings = settings_answer(asked).settings
    assert settings.subscription.group.name == "group"
    assert not settings.subscription.fifo
    assert settings.subscription.receive_batch_size == 32
    assert settings.subscription.long_polling_timeout.seconds == 20
    assert settings.backoff_policy == default_retry()
    assert settings_answer(asked, GroupFacts(default_retry(3), fifo=True)).settings.subscription.fifo
    assert settings_answer(asked, GroupFacts(default_retry(3))).settings.backoff_policy.max_attempts == 3


def exponential(initial_ms: int, max_ms: int, multiplier: float, max_attempts: int = 5) -> v2.RetryPolicy:
    backoff = v2.ExponentialBackoff(multiplier=multiplier)
    backoff.initial.FromMilliseconds(initial_ms)
    backoff.max.FromMilliseconds(max_ms)
    return v2.RetryPolicy(max_attempts=max_attempts, exponential_backoff=backoff)


@pytest.mark.parametrize(
    ("policy", "steps_s"),
    [
        (exponential(500, 10_000, 2), [1, 1, 2, 4, 8]),
        (exponential(3000, 4000, 2), [3, 4]),
        (exponential(1000, 4000, 0, max_attempts=3), [1, 1, 1]),
        (exponential(1000, 10**9, 1, max_attempts=1000), [1] * 64),
    ],
)
def test_python_gets_whole_seconds_spelled_out(policy: v2.RetryPolicy, steps_s: list[int]):
    retry = retry_for(v2.PYTHON, policy)
    assert retry.max_attempts == policy.max_attempts
    assert [step.seconds for step in retry.customized_backoff.next] == steps_s
    assert not any(step.nanos for step in retry.customized_backoff.next)


def test_node_gets_an_exponential_policy():
    retry = retry_for(v2.NODE_JS, default_retry(7))
    assert retry.max_attempts == 7
    assert retry.exponential_backoff.initial.seconds == 10
    assert retry.exponential_backoff.max.seconds == 7200


def test_the_others_get_the_policy_as_it_is():
    for policy in (default_retry(), exponential(500, 10_000, 2)):
        assert retry_for(v2.JAVA, policy) == policy
