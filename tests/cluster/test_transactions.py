"""Half messages in real processes: a broker that is killed, producers that go and come."""

from collections.abc import Callable

import pytest

from kourou import AsyncProducer, AsyncSimpleConsumer, Message, ReceivedMessage, TransactionResolution
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually


def _unknown(_message: ReceivedMessage) -> TransactionResolution:
    return TransactionResolution.UNKNOWN


async def test_what_is_left_open_over_a_kill_is_asked_about(new_cluster: Callable[..., Cluster]) -> None:
    times = {"transaction_check_after_s": 1, "transaction_check_interval_s": 1, "transaction_max_checks": 30}
    cluster = new_cluster(namesrvs=1, brokers=1, broker=times)
    broker = cluster.broker("broker-a")
    async with Operator(cluster) as operator:
        await operator.create_topic("payments", message_type=v2.TRANSACTION)
        await operator.create_group("ledger", shared=True)

        async def half() -> int:
            return sum(held.half for held in (await operator.describe(broker.address)).held_messages)

        async with AsyncProducer(cluster.namesrv, transaction_checker=_unknown) as producer:
            async with producer.transaction(Message("payments", b"committed")):
                assert await half() == 1
            async with producer.transaction(Message("payments", b"rolled back")) as transaction:
                transaction.rollback()
            assert await half() == 0
            for body in (b"paid", b"not paid"):
                with pytest.raises(ZeroDivisionError):
                    async with producer.transaction(Message("payments", body)):
                        _ = 1 / 0
            assert await half() == 2
        broker.kill()
        broker.start()
        cluster.wait_until_registered(broker)

        async def consumed() -> list[bytes]:
            async with AsyncSimpleConsumer("ledger", {"payments": "*"}, cluster.namesrv) as consumer:
                received = await consumer.receive(wait_s=1, invisible_duration_s=30)
                await consumer.ack(*received)
            return [message.body for message in received]

        assert await eventually(consumed) == [b"committed"]
        assert await half() == 2

        asked: list[bytes] = []

        def look_up(message: ReceivedMessage) -> TransactionResolution:
            asked.append(message.body)
            return TransactionResolution.COMMIT if message.body == b"paid" else TransactionResolution.ROLLBACK

        async with AsyncProducer(cluster.namesrv, transaction_checker=look_up, topics=["payments"]):
            await eventually(lambda: len(asked) >= 2, what="the other producer is asked")
            await eventually(consumed)
        assert sorted(asked) == [b"not paid", b"paid"]
        assert await half() == 0
