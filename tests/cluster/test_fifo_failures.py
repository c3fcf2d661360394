"""Message groups in trouble: a message that cannot be handled, a consumer and a broker that are killed."""

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from kourou import AsyncProducer, AsyncPushConsumer, AsyncSimpleConsumer, Message, ReceivedMessage
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.log.v1 import record_pb2
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.process import Process
from tests.cluster.waiting import eventually

GROUPS = [f"account-{number}" for number in range(12)]
EACH = 150


def by_group(heard: Iterable[str]) -> dict[str, list[int]]:
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for group, number in (body.split() for body in heard):
        numbers[group].append(int(number))
    return numbers


async def test_a_message_that_cannot_be_handled_holds_up_its_group_until_it_is_a_dead_letter(
    cluster: Cluster, operator: Operator, name: str
) -> None:
    await operator.create_topic(name, message_type=v2.FIFO)
    await operator.create_group(name, order=record_pb2.ORDER_FIFO, max_attempts=3, backoff_s=[1])
    heard: list[tuple[bytes, int]] = []

    async def listen(message: ReceivedMessage) -> bool:
        heard.append((message.body, message.attempt))
        return message.body != b"bad"

    async with AsyncProducer(cluster.namesrv) as producer:
        bad, _ = await producer.send_many([Message(name, body, message_group="red") for body in (b"bad", b"next")])
        await producer.send(Message(name, b"other", message_group="blue"))
    async with AsyncPushConsumer(name, {name: "*"}, listen, cluster.namesrv):
        await eventually(lambda: len(heard) == 5, 20)
    of_red = [(body, attempt) for body, attempt in heard if body != b"other"]
    assert of_red == [(b"bad", 1), (b"bad", 2), (b"bad", 3), (b"next", 1)]
    assert heard.index((b"other", 1)) < heard.index((b"bad", 3)), "another group does not wait"
    async with AsyncSimpleConsumer(f"{name}-dead", {f"%DLQ%{name}": "*"}, cluster.namesrv) as reader:
        await operator.create_group(f"{name}-dead")
        [dead] = await reader.receive(wait_s=10)
        assert (dead.body, dead.dead_letter_of) == (b"bad", (name, bad.message_id))
        await reader.ack(dead)
    assert await operator.lag(name, name) == 0


async def test_no_kill_brings_a_message_before_an_older_one_of_its_group(
    new_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    # A broker that comes back does not know who of those that it lent messages to is gone: it waits that long.
    cluster = new_cluster(namesrvs=1, brokers=2, broker={"invisible_time_ms": 3000})
    victim = cluster.broker("broker-b")
    program = str(Path(__file__).with_name("member.py"))
    doomed = Process("doomed", [sys.executable, program, cluster.namesrv, "team", "moves"], tmp_path, ready="listens")
    heard: list[str] = []

    def doomed_heard() -> list[str]:
        return [line for line in doomed.output.splitlines() if line.startswith("account")]

    async def listen(message: ReceivedMessage) -> None:
        await asyncio.sleep(0.001)
        heard.append(message.body.decode())

    async def write(producer: AsyncProducer, group: str) -> None:
        for number in range(EACH):
            await producer.send(Message("moves", f"{group} {number}".encode(), message_group=group))

    async with Operator(cluster) as operator:
        await operator.create_topic("moves", message_type=v2.FIFO)
        await operator.create_group("team", order=record_pb2.ORDER_FIFO)
    try:
        # It comes first: so queues go from it to the survivor, and never back.
        await asyncio.to_thread(doomed.start)
        async with (
            AsyncPushConsumer("team", {"moves": "*"}, listen, cluster.namesrv),
            AsyncProducer(cluster.namesrv, send_timeout_s=60) as producer,
        ):
            writing = asyncio.gather(*(write(producer, group) for group in GROUPS))
            await eventually(lambda: heard and len(doomed_heard()) > EACH, 60)
            await asyncio.to_thread(doomed.kill)
            count = len(heard)
            await eventually(lambda: len(heard) > count + EACH, 60)
            await asyncio.to_thread(victim.kill)
            await asyncio.to_thread(victim.start)
            await writing
            of_doomed = by_group(doomed_heard())
            everything = {(group, number) for group in GROUPS for number in range(EACH)}

            def all_heard() -> bool:
                pairs = {(g, n) for heard_by in (by_group(heard), of_doomed) for g, ns in heard_by.items() for n in ns}
                return pairs == everything

            await eventually(all_heard, 60)
    finally:
        doomed.dispose()
    assert len(of_doomed) > 1
    for group, numbers in by_group(heard).items():
        before = of_doomed.get(group, [])
        # What was heard and not acknowledged before a kill comes again, and nothing older than that.
        assert before == sorted(before), f"{group} went back: {before}"
        assert numbers == sorted(numbers), f"{group} went back: {numbers}"
        assert not before or numbers[0] >= before[-1], f"{group}: {before[-1]}, and then {numbers[0]}"
