"""A small topic for each session: answers go to the one member that serves the session, in order.

    kourou topic create answers --type lite --lite-expiration 1h
    kourou group create chat --lite answers
    python clients/python/examples/lite.py

`kourou dev` starts a local cluster to try it on.
"""

from __future__ import annotations

from collections import defaultdict

from kourou import LiteSimpleConsumer, Message, Producer

SESSIONS = ["session-1", "session-2"]


def main() -> None:
    heard: defaultdict[str, list[str]] = defaultdict(list)
    with Producer() as producer, LiteSimpleConsumer("chat", "answers") as consumer:
        # Each client says which of the lite topics it reads; there may be many thousands, that come and go.
        for session in SESSIONS:
            consumer.subscribe(session)
        for word in ("Once", "upon", "a", "time"):
            # A lite topic comes to be with its first message, and goes when nothing came for a while.
            for session in [*SESSIONS, "session-of-nobody"]:
                producer.send(Message("answers", word.encode(), lite_topic=session))
        while sum(map(len, heard.values())) < 8:
            # Nothing more of a lite topic before what was received of it is settled.
            for message in consumer.receive(wait_s=10):
                heard[str(message.lite_topic)].append(message.body.decode())
                consumer.ack(message)
    for session in SESSIONS:
        print(f"{session}:", *heard[session])


if __name__ == "__main__":
    main()
