"""A push consumer as a program, to be killed: member.py NAMESRV GROUP TOPIC. Writes what it hears."""

import sys
import threading

from kourou import PushConsumer, ReceivedMessage


def listen(message: ReceivedMessage) -> None:
    # In one piece, with its newline: several threads write.
    sys.stdout.write(f"{message.body.decode()}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    namesrv, group, topic = sys.argv[1:]
    with PushConsumer(group, {topic: "*"}, listen, namesrv) as consumer:
        print(f"member {consumer.client_id} listens", flush=True)
        threading.Event().wait()
