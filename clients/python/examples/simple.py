"""Messages received when asked for: acknowledged, given back at once, or kept for longer.

    kourou topic create parcels --queues 1
    kourou group create couriers
    python clients/python/examples/simple.py

`kourou dev` starts a local cluster to try it on.
"""

from __future__ import annotations

from kourou import Message, Producer, ReceivedMessage, SimpleConsumer


def main() -> None:
    with Producer() as producer:
        producer.send_many([Message("parcels", body) for body in (b"letter", b"piano", b"vase")])

    # Whoever receives a message has 2 s for it, then it goes to the next one who asks.
    with SimpleConsumer("couriers", {"parcels": "*"}) as consumer:
        parcels = {message.body.decode(): message for message in consumer.receive(invisible_duration_s=2, wait_s=10)}
        consumer.ack(parcels["letter"])
        # This one takes longer: nobody else gets it for a minute.
        consumer.change_invisible_duration(parcels["piano"], 60)
        # And this one is given back at once.
        consumer.change_invisible_duration(parcels["vase"], 0)

        [again] = receive(consumer)
        print(f"{again.body.decode()}, attempt {again.attempt}")
        consumer.ack([again, parcels["piano"]])
        print("left:", len(consumer.receive(wait_s=3)))


def receive(consumer: SimpleConsumer) -> list[ReceivedMessage]:
    while not (messages := consumer.receive(wait_s=10)):
        pass
    return messages


if __name__ == "__main__":
    main()
