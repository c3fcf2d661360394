"""Messages that are delivered if and only if an order is in the database.

    kourou topic create bookings --type transaction
    python clients/python/examples/transaction.py

`kourou dev` starts a local cluster to try it on.
"""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

from kourou import Message, Producer, ReceivedMessage, SimpleConsumer, TransactionResolution


class Orders:
    """The application's database."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._connect() as database:
            database.execute("CREATE TABLE orders (name TEXT)")

    def add(self, name: str) -> None:
        with self._connect() as database:
            database.execute("INSERT INTO orders VALUES (?)", [name])

    def has(self, name: str) -> bool:
        with self._connect() as database:
            return database.execute("SELECT 1 FROM orders WHERE name = ?", [name]).fetchone() is not None

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        orders = Orders(Path(folder) / "orders.db")

        def check(message: ReceivedMessage) -> TransactionResolution:
            """A broker asks what became of a message: the database knows."""
            if orders.has(message.keys[0]):
                return TransactionResolution.COMMIT
            # Nobody is at it any more: an order that is not there will not come. A program whose database transactions
            # take longer than the brokers wait would answer UNKNOWN for a while.
            return TransactionResolution.ROLLBACK

        with Producer(transaction_checker=check, topics=["bookings"]) as producer:
            # The block begins when the broker has the message, where no consumer sees it. Its end delivers it.
            with producer.transaction(Message("bookings", b"order-1", keys=["order-1"])):
                orders.add("order-1")

            # Or it turns out that there is nothing to tell.
            with producer.transaction(Message("bookings", b"order-2", keys=["order-2"])) as transaction:
                transaction.rollback()

            # An exception does not tell whether the database took the order. Here it did: the broker asks, some seconds
            # later, and the message is delivered all the same.
            try:
                with producer.transaction(Message("bookings", b"order-3", keys=["order-3"])):
                    orders.add("order-3")
                    raise ConnectionError("the database did not answer in time")
            except ConnectionError:
                pass

            received: list[str] = []
            with SimpleConsumer("billing", {"bookings": "*"}) as consumer:
                while len(received) < 2:
                    for message in consumer.receive(wait_s=20):
                        received.append(message.body.decode())
                        consumer.ack(message)
            print("delivered:", *sorted(received))


if __name__ == "__main__":
    main()
