"""The settings that client and broker tell each other over the telemetry stream."""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from kourou import backoff
from kourou.filters import Filter, wire_form
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.wire import REQUEST_TIMEOUT_S, VERSION

_RETRY = backoff.Exponential(initial_s=0.01, max_s=1.0)


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """What the brokers prescribe; these values until they do."""

    retry: backoff.Backoff = _RETRY
    """Producers: the wait between tries. Consumers: how long a failed message stays away."""
    max_attempts: int = 16
    """Of a message, its deliveries in all."""
    fifo: bool = False
    """The group consumes the messages of a message group in order."""
    receive_batch_size: int = 32
    long_polling_timeout_s: float = 20.0

    def applied(self, answer: v2.Settings) -> BrokerSettings:
        """With what the answer says; what it leaves out stays."""
        subscription = answer.subscription
        poll_s = subscription.long_polling_timeout.ToNanoseconds() / 1e9
        return replace(
            self,
            retry=backoff.of_policy(answer.backoff_policy) or self.retry,
            max_attempts=max(0, answer.backoff_policy.max_attempts) or self.max_attempts,
            fifo=subscription.fifo if subscription.HasField("fifo") else self.fifo,
            receive_batch_size=max(0, subscription.receive_batch_size) or self.receive_batch_size,
            long_polling_timeout_s=poll_s if poll_s > 0 else self.long_polling_timeout_s,
        )


def publishing(topics: Iterable[str]) -> v2.Settings:
    """A producer's settings."""
    settings = _common(v2.PRODUCER)
    settings.publishing.topics.extend(v2.Resource(name=topic) for topic in topics)
    settings.publishing.validate_message_type = True
    return settings


def subscribing(client_type: v2.ClientType, group: str, subscriptions: Mapping[str, Filter]) -> v2.Settings:
    """A consumer's settings; subscriptions are filters by topic."""
    settings = _common(client_type)
    settings.subscription.group.name = group
    settings.subscription.subscriptions.extend(
        v2.SubscriptionEntry(topic=v2.Resource(name=topic), expression=wire_form(wanted))
        for topic, wanted in subscriptions.items()
    )
    return settings


def _common(client_type: v2.ClientType) -> v2.Settings:
    return v2.Settings(
        client_type=client_type,
        request_timeout=timedelta(seconds=REQUEST_TIMEOUT_S),
        user_agent=v2.UA(
            language=v2.PYTHON, version=VERSION, platform=platform.platform(), hostname=socket.gethostname()
        ),
    )
