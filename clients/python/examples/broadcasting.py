"""Every member of a group receives every message, and keeps its progress itself.

    kourou topic create prices
    python clients/python/examples/broadcasting.py

`kourou dev` starts a local cluster to try it on.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from kourou import Broadcasting, Message, Producer, PushConsumer, ReceivedMessage


class Member:
    """One of them; in life each would be a process."""

    def __init__(self, name: str, folder: Path) -> None:
        self.prices: list[str] = []
        self.complete = threading.Event()
        # A new member begins with what is sent from now on; "first" would be the oldest message that is kept. Each
        # member on a host has a file of its own, from which it goes on after a restart.
        progress = Broadcasting(offsets_path=folder / f"{name}.json", start="end")
        self.consumer = PushConsumer("screens", {"prices": "*"}, self._listen, broadcasting=progress)

    def _listen(self, message: ReceivedMessage) -> None:
        self.prices.append(message.body.decode())
        if len(self.prices) == 3:
            self.complete.set()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        members = [Member(name, Path(folder)) for name in ("left", "right")]
        with members[0].consumer, members[1].consumer, Producer() as producer:
            for price in (b"10", b"11", b"12"):
                producer.send(Message("prices", price))
            for member in members:
                member.complete.wait(30)
        for member in members:
            print("a member heard", *sorted(member.prices))


if __name__ == "__main__":
    main()
