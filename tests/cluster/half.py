"""A producer as a program, to be killed in the middle of transactions: half.py NAMESRV TOPIC KEY..."""

import sys
import threading
from contextlib import ExitStack

from kourou import Message, Producer, TransactionResolution

if __name__ == "__main__":
    namesrv, topic, *keys = sys.argv[1:]
    with ExitStack() as stack:
        producer = stack.enter_context(Producer(namesrv, transaction_checker=lambda _: TransactionResolution.UNKNOWN))
        for key in keys:
            stack.enter_context(producer.transaction(Message(topic, key.encode(), keys=[key])))
        print("the messages are stored", flush=True)
        threading.Event().wait()
