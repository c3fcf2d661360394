"""Every query of every dashboard finds something in the real Prometheus, and the alert rules work there."""

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from kourou import AsyncProducer, AsyncSimpleConsumer, Message, TransactionResolution
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from tests.cluster.load import Load
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compose import prometheus
from tests.compose.panels import PATIENCE_S, has_data
from tests.compose.stack import Stack
from tests.unit.deploy.files import alerts, dashboards, filled_in, queries, recorded, variables

GRAFANA = "http://127.0.0.1:3000"


async def test_every_query_of_every_dashboard_has_an_answer(stack: Stack, operator: Operator, name: str) -> None:
    async with traffic(stack, operator, name):
        await eventually(lambda: nothing_missing(name), PATIENCE_S, interval_s=2, what="data for all queries")


async def test_all_rules_work(stack: Stack) -> None:
    async def all_are_healthy() -> bool:
        groups = await asyncio.to_thread(prometheus.get, "rules")
        rules = {rule["name"]: rule for group in groups["groups"] for rule in group["rules"]}
        assert rules.keys() == alerts().keys() | recorded()
        faults = {name: rule.get("lastError") for name, rule in rules.items() if rule["health"] != "ok"}
        assert not faults, faults
        return True

    await eventually(all_are_healthy, 30, interval_s=1)


async def test_a_lost_broker_is_told(stack: Stack) -> None:
    """Its container is gone from the name service, so only the others can tell of it."""

    async def told() -> bool:
        alert = 'ALERTS{alertname="KourouBrokerLost", alertstate="firing", broker="broker-b"}'
        return bool(await asyncio.to_thread(prometheus.query, alert))

    async def not_told() -> bool:
        return not await told()

    await eventually(not_told, PATIENCE_S, interval_s=1, what="no alert")
    await asyncio.to_thread(stack.container("broker-b").kill)
    await eventually(told, PATIENCE_S, interval_s=1, what="the alert")
    await asyncio.to_thread(stack.restore)
    await eventually(not_told, PATIENCE_S, interval_s=1, what="the alert's end")


def test_grafana_has_the_dashboards(stack: Stack) -> None:
    """Without a login."""
    assert ask_grafana("health")["database"] == "ok"
    listed = {(board["uid"], board["title"]) for board in ask_grafana("search?type=dash-db")}
    assert listed == {(board["uid"], board["title"]) for board in dashboards().values()}


@asynccontextmanager
async def traffic(stack: Stack, operator: Operator, name: str) -> AsyncIterator[None]:
    """All that dashboards tell of: messages of two groups, dead letters, delayed messages, transactions."""
    groups = [f"{name}-simple", f"{name}-push", f"{name}-failing"]
    await operator.create_topic(name)
    for group in groups:
        await operator.create_group(group, max_attempts=1 if group == groups[-1] else 16)
    load = Load(stack.namesrv, name, groups[0], groups[1])
    async with load.running(producers=1, consumers=1), dead_letters(stack, name, groups[-1]):
        async with held_messages(stack, operator, name):
            yield
        await load.finish(operator)


@asynccontextmanager
async def dead_letters(stack: Stack, topic: str, group: str) -> AsyncIterator[None]:
    """Meanwhile a consumer receives and acknowledges nothing."""
    async with AsyncProducer(stack.namesrv) as producer:
        await producer.send(Message(topic, b"nobody will acknowledge this"))

    async def fail() -> None:
        async with AsyncSimpleConsumer(group, {topic: "*"}, stack.namesrv) as consumer:
            while True:
                await consumer.receive(wait_s=2, invisible_duration_s=1)

    async with asyncio.TaskGroup() as tasks:
        failing = tasks.create_task(fail())
        yield
        failing.cancel()


@asynccontextmanager
async def held_messages(stack: Stack, operator: Operator, name: str) -> AsyncIterator[None]:
    """One that fires soon and one that waits; a transaction that is committed, and one that is open meanwhile."""
    later, payments = f"{name}-later", f"{name}-payments"
    await operator.create_topic(later, message_type=v2.DELAY)
    await operator.create_topic(payments, message_type=v2.TRANSACTION)
    async with AsyncProducer(stack.namesrv, transaction_checker=lambda _: TransactionResolution.UNKNOWN) as producer:
        await producer.send(Message(later, b"soon", delivery_time=datetime.now(UTC) + timedelta(seconds=2)))
        waiting = await producer.send(Message(later, b"later", delivery_time=datetime.now(UTC) + timedelta(hours=1)))
        async with producer.transaction(Message(payments, b"committed")):
            pass
        async with producer.transaction(Message(payments, b"open")):
            yield
        assert waiting.recall_handle
        await producer.recall(later, waiting.recall_handle)


async def nothing_missing(topic: str) -> bool:
    def missing() -> list[str]:
        values = variable_values()
        assert topic in values["topic"], "the topic is not among the values of $topic"
        every = [dict.fromkeys(values, ".*"), {name: "|".join(map(quoted, of)) for name, of in values.items()}]
        return sorted({query.where for query in queries() for each in every if not has_data(query, each)})

    without_data = await asyncio.to_thread(missing)
    assert not without_data, without_data
    return True


def variable_values() -> Mapping[str, list[str]]:
    """What can be chosen from, by the variable's name; each with all of those before it chosen."""
    values: dict[str, list[str]] = {}
    for variable in variables():
        series = filled_in(variable.metric, dict.fromkeys(values, ".*"))
        found = prometheus.get(f"label/{variable.label}/values", **{"match[]": series})
        assert found, f"{variable.where} has no values"
        values[variable.name] = found
    return values


def quoted(value: str) -> str:
    """As a regular expression in a string of PromQL that matches just this."""
    return re.escape(value).replace("\\", "\\\\")


def ask_grafana(path: str) -> Any:
    with urllib.request.urlopen(f"{GRAFANA}/api/{path}", timeout=10) as answer:
        return json.load(answer)
