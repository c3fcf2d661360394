"""Transactions in real processes: whoever ends them, and whatever is killed within them."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kourou import (
    AsyncProducer,
    AsyncPushConsumer,
    InvalidRequest,
    Message,
    ReceivedMessage,
    TransactionResolution,
)
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.process import Process
from tests.cluster.waiting import eventually

COMMIT, ROLLBACK, UNKNOWN = TransactionResolution
QUICK = {"transaction_check_after_s": 1, "transaction_check_interval_s": 1, "transaction_max_checks": 3}
TOPIC = "bookings"


@asynccontextmanager
async def consuming(cluster: Cluster) -> AsyncIterator[list[str]]:
    """What comes of the topic, in the order in which it comes."""
    heard: list[str] = []

    async def listen(message: ReceivedMessage) -> None:
        heard.append(message.body.decode())

    async with Operator(cluster) as operator:
        await operator.create_topic(TOPIC, message_type=v2.TRANSACTION)
        await operator.create_group("readers")
    async with AsyncPushConsumer("readers", {TOPIC: "*"}, listen, cluster.namesrv):
        yield heard


def message(key: str) -> Message:
    return Message(TOPIC, key.encode(), keys=[key])


async def unknown(orphan: ReceivedMessage) -> TransactionResolution:
    return UNKNOWN


async def test_a_killed_producers_transactions_are_ended_by_another_one(
    new_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = new_cluster(namesrvs=1, brokers=2, broker=QUICK)
    fates = {"in-database": COMMIT, "not-there": ROLLBACK, "in-database-2": COMMIT, "not-there-2": ROLLBACK}
    asked: set[str] = set()

    def check(orphan: ReceivedMessage) -> TransactionResolution:
        asked.add(orphan.keys[0])
        return fates[orphan.keys[0]]

    async with consuming(cluster) as heard:
        program = str(Path(__file__).with_name("half.py"))
        args = [sys.executable, program, cluster.namesrv, TOPIC, *fates]
        doomed = Process("producer", args, tmp_path, ready="the messages are stored")
        try:
            await asyncio.to_thread(doomed.start)
            await asyncio.to_thread(doomed.kill)
        finally:
            doomed.dispose()
        assert heard == []
        # Never sent anything: the brokers find it by the topics it names.
        async with AsyncProducer(cluster.namesrv, transaction_checker=check, topics=[TOPIC]) as heir:
            await eventually(lambda: asked == set(fates), 20)
            await eventually(lambda: sorted(heard) == ["in-database", "in-database-2"], 10)
            # And what comes later shows that nothing else was on its way.
            async with heir.transaction(message("later")):
                pass
            await eventually(lambda: "later" in heard, 10)
        assert sorted(heard) == ["in-database", "in-database-2", "later"]


async def test_a_transaction_ends_after_its_broker_was_killed_within_it(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(namesrvs=1, brokers=1)
    [broker] = cluster.brokers
    async with (
        consuming(cluster) as heard,
        AsyncProducer(cluster.namesrv, transaction_checker=unknown, send_timeout_s=30) as producer,
    ):
        async with producer.transaction(message("committed")):
            async with producer.transaction(message("dropped")) as dropped:
                await asyncio.to_thread(broker.kill)
                await asyncio.to_thread(broker.start)
                dropped.rollback()
            assert heard == []
        async with producer.transaction(message("next")):
            pass
        await eventually(lambda: len(heard) >= 2, 20)
        assert sorted(heard) == ["committed", "next"]


async def test_a_checker_that_learns_late_and_one_that_never_does(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(namesrvs=1, brokers=1, broker=QUICK)
    asked: list[str] = []

    async def check(orphan: ReceivedMessage) -> TransactionResolution:
        asked.append(orphan.keys[0])
        return COMMIT if orphan.keys[0] == "late" and asked.count("late") == 2 else UNKNOWN

    async with (
        consuming(cluster) as heard,
        AsyncProducer(cluster.namesrv, transaction_checker=check, topics=[TOPIC]) as producer,
    ):
        with pytest.raises(KeyError):
            async with producer.transaction(message("late")):
                raise KeyError
        await eventually(lambda: heard == ["late"], 15)
        with pytest.raises(InvalidRequest, match="transaction"):
            await commit_too_late(producer, lambda: asked.count("never") == 3)
        assert heard == ["late"]


async def commit_too_late(producer: AsyncProducer, asked_for_the_last_time: Callable[[], bool]) -> None:
    async with producer.transaction(message("never")):
        await eventually(asked_for_the_last_time, 15)
        # Then the broker waits for an answer as long as before.
        await asyncio.sleep(2.5)
