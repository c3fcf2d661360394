"""Delayed messages and transactions of official clients."""

import asyncio
import time

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compat.conftest import NewHost
from tests.compat.official import Client, Program, Run, bodies, messages

LATE_MS = 2000
"""On a busy machine; a broker at leisure is exact to 100 ms."""


async def test_a_delayed_message_comes_in_time_unless_it_is_recalled(
    client: Client, operator: Operator, name: str
) -> None:
    await operator.create_topic(name, message_type=v2.DELAY)
    await operator.create_group(name)
    due_ms = (int(time.time()) + 5) * 1000
    async with client.listening() as listener, client.producing() as producer:
        producer.tell(messages=messages("soon", "recalled", "later", deliver_at_ms=due_ms))
        soon, recalled, _later = await producer.until(3, of="id")
        assert await producer.answer("recalled", recall=recalled["recall_handle"]) == {"recalled": recalled["id"]}
        again = await producer.answer("recalled", recall=recalled["recall_handle"])
        assert "is not pending" in again["refused"]
        heard = await listener.until_heard(2)
        assert sorted(bodies(heard)) == ["later", "soon"]
        for each in heard:
            assert due_ms <= each["at_ms"] <= due_ms + LATE_MS
        late = await producer.answer("recalled", recall=soon["recall_handle"])
        assert "is not pending" in late["refused"]
        nonsense = await producer.answer("recalled", recall="no handle")
        assert "refused" in nonsense
        await eventually(lambda: _no_lag(operator, name))
    assert len(listener.heard) == 2


async def test_transactions_end_as_they_are_told(client: Client, operator: Operator, name: str) -> None:
    await operator.create_topic(name, message_type=v2.TRANSACTION)
    await operator.create_group(name)
    async with client.listening() as listener:
        await client.send(messages("rolled back"), end="rollback", answer="UNKNOWN")
        committed = await client.send(messages("committed", "committed too"), end="commit", answer="UNKNOWN")
        heard = await listener.until_heard(2)
        assert {each["id"] for each in heard} == {each["id"] for each in committed}
        await eventually(lambda: _no_lag(operator, name))
        await eventually(lambda: _none_held(operator, name))
    assert len(listener.heard) == 2


async def test_open_transactions_are_asked_about(
    program: Program, host_of: NewHost, quick_cluster: Cluster, name: str
) -> None:
    """Each answer, in topics of its own: what is still not known after three questions is rolled back."""
    client = Client(host_of(program), quick_cluster, name)
    async with Operator(quick_cluster) as operator:

        async def ends(answer: str) -> tuple[list[str], list[str]]:
            """-> what was sent and asked about, and what came."""
            topic = f"{name}-{answer}"
            await operator.create_topic(topic, message_type=v2.TRANSACTION)
            await operator.create_group(topic)
            async with (
                client.listening(topic=topic, group=topic) as listener,
                client.producing(topic=topic, answer=answer) as producer,
            ):
                sent = await producer.answer("id", messages=messages(answer), end="open")
                assert await _held(operator, topic) == 1
                await eventually(lambda: _none_held(operator, topic), 30)
                asked = [told["checked"] for told in producer.of("checked")]
                assert set(asked) == {sent["id"]}
                if answer == "COMMIT":
                    await listener.until_heard(1)
            return asked, bodies(listener.heard)

        committed, rolled_back, unknown = await asyncio.gather(*map(ends, ("COMMIT", "ROLLBACK", "UNKNOWN")))
    assert committed[1] == ["COMMIT"]
    assert rolled_back[1] == unknown[1] == []
    assert len(unknown[0]) == 3


async def test_another_producer_answers_for_one_that_died(
    program: Program, new_host: NewHost, host_of: NewHost, quick_cluster: Cluster, name: str
) -> None:
    doomed = Client(new_host(program), quick_cluster, name)
    client = Client(host_of(program), quick_cluster, name)
    async with Operator(quick_cluster) as operator:
        await operator.create_topic(name, message_type=v2.TRANSACTION)
        await operator.create_group(name)
        run: Run = doomed.begin("produce", stays=True, answer="UNKNOWN")
        await run.until(1, of="started")
        sent = await run.answer("id", messages=messages("orphan"), end="open")
        doomed.host.kill()
        async with client.listening() as listener, client.producing(answer="COMMIT") as producer:
            [heard] = await listener.until_heard(1)
            assert heard["id"] == sent["id"]
            assert {told["checked"] for told in producer.of("checked")} == {sent["id"]}
        assert await _held(operator, name) == 0


async def _held(operator: Operator, topic: str) -> int:
    """Messages of the topic that wait for their time, or for the end of their transaction."""
    described = [await operator.describe(address) for address in operator.broker_addresses]
    return sum(
        held.delayed + held.half for each in described for held in each.held_messages if held.topic.name == topic
    )


async def _none_held(operator: Operator, topic: str) -> bool:
    return await _held(operator, topic) == 0


async def _no_lag(operator: Operator, name: str) -> bool:
    return await operator.lag(name, name) == 0
