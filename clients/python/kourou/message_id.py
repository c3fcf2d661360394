"""Message ids: the producer's own, and the broker's offset message id.

A producer's id has the layout of RocketMQ 5, 17 bytes as 34 upper-case hex digits:

    01                 version
    node      6 bytes  random for each process, with the multicast bit set, as RFC 9562 has it for made-up node ids
    process   2 bytes  the low half of the process id
    seconds   4 bytes  since 2021-01-01T00:00:00Z
    sequence  4 bytes  counts up, from a random start; messages that travel together have consecutive ones

The node is not the host's hardware address, as elsewhere: containers on different hosts share theirs, and their process
id is 1 on each. 47 random bits keep them apart, and a forked child draws its own.

An offset message id says where the broker stored the message: `<broker name>@<log position in hex>.<index in hex>`,
as in `broker-a@1f40.3`, the fourth message of what lies at 0x1f40 of that broker's log.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from kourou.errors import InvalidArgument

STORED_KEY = "x-kourou-stored"
"""Trailing metadata of SendMessage, for requests that have it, too: "queue.position.index" of the first message, in
decimal; the others follow it, or each has its own, separated by commas, if they do not lie together."""

_VERSION = "01"
_EPOCH_S = 1_609_459_200  # 2021-01-01T00:00:00Z
_MULTICAST = 1 << 40
_SEQUENCES = 1 << 32
_OFFSET_ID = re.compile(r"(?P<broker>[^@\s]+)@(?P<position>[0-9a-f]{1,16})\.(?P<index>[0-9a-f]{1,8})\Z", re.IGNORECASE)

_STORED = re.compile(r"(-1|\d+)\.(\d+)\.(\d+)\Z", re.ASCII)


class _Process:
    """What is drawn anew for each process."""

    def __init__(self) -> None:
        node = secrets.randbits(48) | _MULTICAST
        self.prefix = f"{_VERSION}{node:012X}{os.getpid() & 0xFFFF:04X}"
        self._next = secrets.randbits(32)
        self._taking = threading.Lock()

    def take(self, count: int) -> int:
        """The first of so many numbers in a row."""
        with self._taking:
            first = self._next if self._next + count <= _SEQUENCES else 0
            self._next = (first + count) % _SEQUENCES
            return first


_process = _Process()


def _after_fork() -> None:
    global _process
    _process = _Process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def new_message_id() -> str:
    """34 upper-case hex digits, unique over processes and hosts; may be called from any thread."""
    return new_message_ids(1)


def new_message_ids(count: int) -> str:
    """The first of so many; those of the others are `message_id_after` it. The last 8 digits do not wrap on the way."""
    process = _process
    seconds = int(time.time()) - _EPOCH_S
    return f"{process.prefix}{seconds & 0xFFFFFFFF:08X}{process.take(count):08X}"


def message_id_after(first_id: str, distance: int) -> str:
    """The last 8 digits count up. Raises ValueError when they are none."""
    return f"{first_id[:-8]}{int(first_id[-8:], 16) + distance:08X}"


@dataclass(frozen=True, slots=True)
class OffsetMessageId:
    """Where a broker stored a message."""

    broker: str
    position: int
    """Byte position in the broker's log."""
    index: int
    """Which message of what lies there, from 0."""

    def __str__(self) -> str:
        return f"{self.broker}@{self.position:x}.{self.index:x}"

    @classmethod
    def parse(cls, text: str) -> OffsetMessageId:
        """Raises InvalidArgument."""
        match = _OFFSET_ID.match(text)
        if match is None:
            raise InvalidArgument(f"{text!r} is no offset message id; one looks like broker-a@1f40.3")
        return cls(match["broker"], int(match["position"], 16), int(match["index"], 16))


@dataclass(frozen=True, slots=True)
class Place:
    """Where the broker stored a message."""

    queue_id: int
    """-1: held back, in no queue yet."""
    position: int
    index: int

    @staticmethod
    def of_trailing(trailing: Mapping[str, str | bytes], count: int) -> list[Place]:
        """Of each of so many messages; empty from a broker that does not say, as RocketMQ's."""
        matches = [_STORED.match(part) for part in str(trailing.get(STORED_KEY, "")).split(",")]
        places = [Place(*map(int, match.groups())) for match in matches if match is not None]
        if len(places) == 1 == len(matches):
            first = places[0]
            return [Place(first.queue_id, first.position, first.index + place) for place in range(count)]
        return places if len(places) == len(matches) == count else []

    def offset_message_id(self, broker: str) -> str:
        return str(OffsetMessageId(broker, self.position, self.index))
