"""What a test and a command say to each other while the command runs."""

import queue
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rocketmq import ClientConfiguration, Credentials, FilterExpression
from rocketmq.grpc_protocol import FilterType  # pyright: ignore[reportAttributeAccessIssue]

Arguments = Mapping[str, Any]


class Orders:
    """The last word is "stop"."""

    def __init__(self) -> None:
        self._said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def say(self, order: dict[str, Any]) -> None:
        self._said.put(order)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._next, None)

    def _next(self) -> dict[str, Any] | None:
        order = self._said.get()
        return None if "stop" in order else order


class Results:
    def __init__(self, write: Callable[[dict[str, Any]], None]) -> None:
        self.told = write

    def refused(self, problem: Exception) -> None:
        """Something could not be; this is how the user of the client sees it."""
        self.told({"refused": f"{type(problem).__name__}: {problem}"})

    def received(self, message: Any) -> None:
        self.told(
            {
                "id": message.message_id,
                "topic": message.topic,
                "body": message.body.hex(),
                "tag": message.tag,
                "keys": sorted(message.keys),
                "properties": message.properties,
                "group": message.message_group,
                "lite_topic": message.lite_topic,
                "priority": message.priority,
                "attempt": message.delivery_attempt,
                "corrupted": message.corrupted,
                "at_ms": int(time.time() * 1000),
            }
        )


def configuration(endpoints: str) -> ClientConfiguration:
    return ClientConfiguration(endpoints, Credentials())


def subscription(arguments: Arguments) -> dict[str, FilterExpression]:
    """By "expression" and "kind" (TAG or SQL92); all messages when they are absent."""
    kind = arguments.get("kind", "TAG").removesuffix("92")
    return {arguments["topic"]: FilterExpression(arguments.get("expression", "*"), FilterType.Value(kind))}
