"""Which door of each broker a client goes through."""

from __future__ import annotations

import logging
from typing import Literal

_log = logging.getLogger(__name__)

Door = Literal["stream", "rocketmq"]


class NoSuchDoor(Exception):
    """The broker does not know the stream door."""


class Doors:
    """A broker counts as one that has the stream door until it says otherwise; then, for as long as the client lives,
    as one that has not."""

    def __init__(self, door: Door) -> None:
        self._streams = door == "stream"
        self._lacking: set[str] = set()

    def has_stream(self, address: str) -> bool:
        return self._streams and address not in self._lacking

    def lack_stream(self, address: str) -> None:
        if address not in self._lacking:
            self._lacking.add(address)
            _log.info("%s does not know kourou.stream.v1; it is spoken to by apache.rocketmq.v2", address)
