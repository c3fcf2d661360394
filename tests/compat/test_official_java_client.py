"""The official Java client, unchanged, with all that the message model has."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.admin.v1 import admin_pb2, admin_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compat.official import JAVA
from tests.stubs.stub import BUILD_TIMEOUT_S

pytestmark = pytest.mark.timeout(BUILD_TIMEOUT_S)

Run = Callable[..., Any]
ONE_BROKER = ["broker-a"]


@pytest.fixture
def java(cluster: Cluster, name: str, tmp_path: Path) -> Run:
    """Runs a command about the topic and the group of the test."""
    JAVA.require()

    async def run(command: str, **arguments: Any) -> list[dict[str, Any]]:
        arguments = {"topic": name, "group": name} | arguments
        return await asyncio.to_thread(JAVA.run, tmp_path, command, cluster.tls_namesrv, **arguments)

    return run


def messages(*bodies: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"body": body.encode().hex(), **fields} for body in bodies]


def bodies(results: Sequence[dict[str, Any]]) -> list[str]:
    return [bytes.fromhex(result["body"]).decode() for result in results]


async def test_message_groups_keep_their_order_when_a_listener_fails(java: Run, operator: Operator, name: str) -> None:
    await operator.create_topic(name, message_type=v2.FIFO)
    await operator.create_group(name, order=record_pb2.ORDER_FIFO)
    sent = [
        message
        for number in range(8)
        for group in ("a", "b", "c")
        for message in messages(f"{'bad' if number == 3 else 'ok'} {number}", group=group)
    ]
    await java("send", messages=sent)
    heard = await java("listen", count=len(sent) + 3)
    by_group: dict[str, list[str]] = defaultdict(list)
    for result in heard:
        by_group[result["group"]] += bodies([result])
    in_order = [f"{'bad' if number == 3 else 'ok'} {number}" for number in (0, 1, 2, 3, 3, 4, 5, 6, 7)]
    assert by_group == dict.fromkeys("abc", in_order)
    await eventually(lambda: _all_consumed(operator, name))


async def test_two_members_keep_the_order_and_share_the_work(java: Run, operator: Operator, name: str) -> None:
    await operator.create_topic(name, message_type=v2.FIFO)
    await operator.create_group(name, order=record_pb2.ORDER_FIFO)
    groups = [f"g{number}" for number in range(12)]
    sent = [message for number in range(5) for group in groups for message in messages(f"{number}", group=group)]
    await java("send", messages=sent)
    members = [java("listen", count=len(sent), timeout_s=12) for _ in range(2)]
    heard = [result for results in await asyncio.gather(*members) for result in results]
    heard.sort(key=lambda result: result["at_ms"])
    by_group: dict[str, list[str]] = defaultdict(list)
    for result in heard:
        by_group[result["group"]] += bodies([result])
    assert by_group == {group: ["0", "1", "2", "3", "4"] for group in groups}


async def test_delayed_messages_come_in_time_unless_they_are_recalled(java: Run, operator: Operator, name: str) -> None:
    await operator.create_topic(name, message_type=v2.DELAY)
    await operator.create_group(name)
    due_ms = int(time.time() * 1000) + 4000
    soon = messages("soon", deliver_at_ms=due_ms)
    recalled = messages("recalled", deliver_at_ms=due_ms + 1000)
    first, second = await java("send", messages=soon + recalled)
    assert await java("recall", handle=second["recall_handle"]) == [{"recalled": second["id"]}]
    [received] = await java("receive", count=2, patience=6)
    assert (received["id"], received["deliver_at_ms"]) == (first["id"], due_ms)
    assert due_ms <= received["at_ms"]
    [late] = await java("recall", handle=first["recall_handle"])
    assert "refused" in late


@pytest.mark.parametrize("resolution", ["commit", "rollback"])
async def test_transactions_end_as_they_are_told(java: Run, operator: Operator, name: str, resolution: str) -> None:
    await operator.create_topic(name, message_type=v2.TRANSACTION)
    await operator.create_group(name)
    [sent] = await java("transact", messages=messages("half"), resolution=resolution)
    received = await java("receive", count=1, patience=8)
    assert [each["id"] for each in received] == ([sent["id"]] if resolution == "commit" else [])


async def test_another_producer_answers_for_one_that_died(java: Run, operator: Operator, name: str) -> None:
    await operator.create_topic(name, message_type=v2.TRANSACTION)
    await operator.create_group(name)
    [sent] = await java("transact", messages=messages("orphan"), resolution="die")
    checked = await java("transact", checks=1, answer="COMMIT")
    assert checked == [{"checked": sent["id"]}]
    received = await java("receive", count=1, patience=5)
    assert [each["id"] for each in received] == [sent["id"]]


async def test_higher_priorities_come_first(java: Run, operator: Operator, name: str) -> None:
    await operator.create_topic(name, 3, message_type=v2.PRIORITY, brokers=ONE_BROKER)
    await operator.create_group(name)
    sent = [message for priority in (0, 2, 1, 9) for message in messages(f"p{priority}", priority=priority)]
    await java("send", messages=sent)
    received = await java("receive", count=len(sent), patience=5)
    assert bodies(received) == ["p2", "p9", "p1", "p0"]
    assert [each["priority"] for each in received] == [2, 9, 1, 0]


async def test_a_lite_consumer_gets_the_lite_topics_that_it_subscribes_to(
    java: Run, operator: Operator, name: str
) -> None:
    # The client spreads a lite topic over the brokers, so its messages have an order on one of them only.
    await operator.create_topic(name, message_type=v2.LITE, brokers=ONE_BROKER)
    lite = record_pb2.LiteGroup(topic=v2.Resource(name=name))
    request = admin_pb2.CreateGroupRequest(name=v2.Resource(name=name), settings=admin_pb2.GroupSettings(lite=lite))
    await operator.ask_admin(admin_rpc.CREATE_GROUP, request)
    sent = [
        message
        for number in range(4)
        for lite_topic in ("a", "b", "c")
        for message in messages(f"{lite_topic}{number}", lite_topic=lite_topic)
    ]
    await java("send", messages=sent)
    heard = await java("listen", count=8, lite_topics=["a", "c"])
    by_topic: dict[str, list[str]] = defaultdict(list)
    for result in heard:
        by_topic[result["lite_topic"]] += bodies([result])
    assert by_topic == {letter: [f"{letter}{number}" for number in range(4)] for letter in "ac"}


async def test_what_always_fails_is_tried_by_the_policy_and_stops_nobody(
    java: Run, cluster: Cluster, operator: Operator, name: str
) -> None:
    await operator.create_topic(name)
    await operator.create_group(name, max_attempts=3, backoff_s=(1, 2))
    others = [f"ok {number}" for number in range(20)]
    await java("send", messages=messages("dead letter", "bad first", *others))
    heard = await java("listen", count=len(others) + 3 + 2)
    dead = [result for result in heard if bodies([result]) == ["dead letter"]]
    assert [result["attempt"] for result in dead] == [1, 2, 3]
    waits_ms = [later["at_ms"] - earlier["at_ms"] for earlier, later in pairwise(dead)]
    assert waits_ms[0] >= 900
    assert waits_ms[1] >= 1900
    assert sorted(set(bodies(heard))) == sorted(["dead letter", "bad first", *others])
    request = broker_pb2.ListDeadLettersRequest(group=v2.Resource(name=name))

    async def buried() -> bool:
        answers = [await operator.ask(each, broker_rpc.LIST_DEAD_LETTERS, request) for each in cluster.broker_addresses]
        return [letter.message.body for answer in answers for letter in answer.letters] == [b"dead letter"]

    await eventually(buried)


async def test_a_member_that_is_killed_loses_nothing_and_keeps_the_order(
    java: Run, cluster: Cluster, operator: Operator, name: str, tmp_path: Path
) -> None:
    await operator.create_topic(name, message_type=v2.FIFO)
    await operator.create_group(name, order=record_pb2.ORDER_FIFO)
    sent = [
        message
        for number in range(30)
        for group in ("a", "b", "c", "d")
        for message in messages(str(number), group=group)
    ]
    arguments = {"topic": name, "group": name, "count": len(sent)}
    first = JAVA.start(tmp_path, "listen", cluster.tls_namesrv, **arguments)
    try:
        assert first.stdout is not None
        await java("send", messages=sent)
        before = [json.loads(await asyncio.to_thread(first.stdout.readline)) for _ in range(20)]
        first.kill()
        before += [json.loads(line) for line in await asyncio.to_thread(first.stdout.readlines) if line.endswith("\n")]
    finally:
        first.kill()
        first.communicate()
    left = await operator.lag(name, name)
    heard = before + await java("listen", count=left)
    by_group: dict[str, list[int]] = defaultdict(list)
    for result in heard:
        by_group[result["group"]] += map(int, bodies([result]))
    for numbers in by_group.values():
        assert numbers == sorted(numbers)  # what the killed one had not acknowledged comes once more
        assert set(numbers) == set(range(30))
    assert await operator.lag(name, name) == 0


async def test_a_running_member_is_set_back_shown_and_tried(
    java: Run, cluster: Cluster, operator: Operator, name: str, tmp_path: Path
) -> None:
    await operator.create_topic(name, brokers=ONE_BROKER)
    await operator.create_group(name)
    sent = await java("send", messages=messages("1", "2", "3"))
    arguments = {"topic": name, "group": name, "count": 100, "timeout_s": 60}
    consumer = JAVA.start(tmp_path, "listen", cluster.tls_namesrv, **arguments)
    try:
        assert consumer.stdout is not None

        async def heard(count: int) -> list[str]:
            assert consumer.stdout is not None
            lines = [await asyncio.to_thread(consumer.stdout.readline) for _ in range(count)]
            return sorted(bodies([json.loads(line) for line in lines]))

        assert await heard(3) == ["1", "2", "3"]
        await eventually(lambda: _all_consumed(operator, name))
        again = admin_pb2.ResetOffsetRequest(group=v2.Resource(name=name), topic=v2.Resource(name=name), first=True)
        await operator.ask_admin(admin_rpc.RESET_OFFSET, again)
        assert await heard(3) == ["1", "2", "3"]
        members = await operator.ask_admin(
            admin_rpc.LIST_CLIENTS, admin_pb2.ListClientsRequest(group=v2.Resource(name=name))
        )
        (client_id,) = {each.client.client_id for each in members.clients}
        stack = await operator.ask_admin(
            admin_rpc.PRINT_THREAD_STACK_TRACE, admin_pb2.PrintThreadStackTraceRequest(client_id=client_id)
        )
        assert "org.apache.rocketmq" in stack.stack_trace
        verify = admin_pb2.VerifyMessageRequest(
            client_id=client_id, topic=v2.Resource(name=name), message_id=sent[0]["id"]
        )
        await operator.ask_admin(admin_rpc.VERIFY_MESSAGE, verify)
        assert await heard(1) == ["1"]
        assert await operator.lag(name, name) == 0
    finally:
        consumer.kill()
        consumer.communicate()


async def test_a_group_that_starts_at_the_last_message_gets_what_comes_from_then_on(
    java: Run, operator: Operator, name: str
) -> None:
    await operator.create_topic(name)
    await operator.create_group(name, start=record_pb2.START_LAST)
    await java("send", messages=messages("before"))
    assert await java("receive", count=1, patience=9) == []
    await java("send", messages=messages("after"))
    assert bodies(await java("receive", count=1, patience=9)) == ["after"]


async def test_conditions_in_sql(java: Run, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    await operator.create_group(name)
    sent = [
        message for total in (5, 50, 500) for message in messages(f"{total}", properties={"total": str(total)}, tag="t")
    ]
    await java("send", messages=sent)
    wanted = "total BETWEEN 10 AND 100 OR total > 400 AND TAGS <> 't'"
    received = await java("receive", count=3, patience=8, expression=wanted, kind="SQL92")
    assert bodies(received) == ["50"]


async def _all_consumed(operator: Operator, name: str) -> bool:
    return await operator.lag(name, name) == 0
