"""Where a group reads: a new one that wants only what comes from now on, and one that an operator sets back at work.

    kourou topic create news --queues 2
    kourou group create archive
    kourou group create ticker --from last
    python clients/python/examples/offset_reset.py

`kourou dev` starts a local cluster to try it on.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from kourou import Message, Producer, PushConsumer, ReceivedMessage, SimpleConsumer

KOUROU = Path(sys.executable).with_name("kourou")


def main() -> None:
    heard = Counter[str]()

    def listen(message: ReceivedMessage) -> None:
        heard[message.body.decode()] += 1

    def wait_for(wanted: dict[str, int]) -> None:
        until = time.monotonic() + 30
        while heard != wanted and time.monotonic() < until:
            time.sleep(0.05)

    with Producer() as producer, PushConsumer("archive", {"news": "*"}, listen):
        producer.send_many([Message("news", b"old"), Message("news", b"older")])
        wait_for({"old": 1, "older": 1})

        # The first receive of this group fixes where it begins: at the end.
        with SimpleConsumer("ticker", {"news": "*"}) as ticker:
            ticker.receive(wait_s=0)
            producer.send(Message("news", b"new"))
            while not (messages := ticker.receive(wait_s=10)):
                pass
            ticker.ack(messages)
            print("the ticker:", *(message.body.decode() for message in messages))

        wait_for({"old": 1, "older": 1, "new": 1})
        # An operator's command, while the member is at work: it hears everything once more.
        subprocess.run([KOUROU, "offset", "reset", "archive", "news", "--first"], check=True, capture_output=True)
        wait_for({"old": 2, "older": 2, "new": 2})
    print("the archive:", ", ".join(f"{what} {times} times" for what, times in sorted(heard.items())))


if __name__ == "__main__":
    main()
