"""A message for later, and one that is taken back before its time.

    kourou topic create reminders --type delay
    python clients/python/examples/delay.py

`kourou dev` starts a local cluster to try it on.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kourou import Message, Producer, SimpleConsumer


def main() -> None:
    now = datetime.now(UTC)
    with Producer() as producer:
        soon = Message("reminders", b"call back", delivery_time=now + timedelta(seconds=2))
        tomorrow = Message("reminders", b"send the bill", delivery_time=now + timedelta(days=1))
        producer.send(soon)
        sent = producer.send(tomorrow)
        # The recall handle takes a message back as long as it is not delivered.
        assert sent.recall_handle is not None
        recalled = producer.recall("reminders", sent.recall_handle)
        assert recalled == sent.message_id
        print("the bill is recalled")

    with SimpleConsumer("diary", {"reminders": "*"}) as consumer:
        while not (messages := consumer.receive(wait_s=10)):
            pass
        [message] = messages
        late = datetime.now(UTC) - now - timedelta(seconds=2)
        consumer.ack(message)
        print(f"{message.body.decode()!r} came in time" if abs(late) < timedelta(seconds=1) else f"late by {late}")


if __name__ == "__main__":
    main()
