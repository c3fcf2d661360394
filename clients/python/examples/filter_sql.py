"""Two groups that want different messages of one topic: the brokers leave out the rest.

    kourou topic create sales
    python clients/python/examples/filter_sql.py

`kourou dev` starts a local cluster to try it on.
"""

from __future__ import annotations

from kourou import Message, Producer, SimpleConsumer, Sql


def main() -> None:
    with Producer() as producer:
        for region, total in (("eu", 80), ("eu", 250), ("us", 900), ("eu", 120)):
            properties = {"region": region, "total": str(total)}
            producer.send(Message("sales", f"{region} {total}".encode(), tag="paid", properties=properties))

    for group, wanted in (
        # A condition over the properties of messages; the tag is the property TAGS.
        ("auditors", Sql("region = 'eu' AND total >= 100 AND TAGS IS NOT NULL")),
        # Tags alone are quicker.
        ("refunds", "returned || cancelled"),
    ):
        with SimpleConsumer(group, {"sales": wanted}) as consumer:
            received: list[str] = []
            while messages := consumer.receive(wait_s=2):
                received += [message.body.decode() for message in messages]
                consumer.ack(messages)
        print(f"{group}:", ", ".join(sorted(received)) or "nothing")


if __name__ == "__main__":
    main()
