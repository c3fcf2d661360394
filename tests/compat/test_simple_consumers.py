"""Simple consumers of official clients: what they have is theirs for a time, which they may change."""

import pytest

from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compat.official import Client, Run, Told, messages


@pytest.mark.parametrize("asynchronously", [False, True], ids=["", "async"])
async def test_the_invisible_time_is_changed(
    client: Client, operator: Operator, name: str, asynchronously: bool
) -> None:
    await operator.create_topic(name, brokers=["broker-a"])
    await operator.create_group(name)
    how = {"asynchronously": True} if asynchronously else {}

    async def next_one(consumer: Run) -> Told:
        before = len(consumer.heard)
        for _ in range(8):
            answer = await consumer.answer("received", receive=1, invisible_s=30, **how)
            if answer["received"] == "1":
                return consumer.heard[before]
        raise AssertionError("nothing came")

    async with client.running("simple") as consumer:
        [sent] = await client.send(messages("x"))
        first = await next_one(consumer)
        assert (first["id"], first["attempt"]) == (sent["id"], 1)
        assert "changed" in await consumer.answer("changed", change=sent["id"], attempt=1, seconds=1, **how)
        second = await next_one(consumer)
        assert (second["id"], second["attempt"]) == (sent["id"], 2)
        assert second["at_ms"] - first["at_ms"] >= 900
        assert "changed" in await consumer.answer("changed", change=sent["id"], attempt=2, seconds=60, **how)
        # Without the other methods: those of the Python client say nothing of how it ended.
        stale = await consumer.answer("settled", settle=sent["id"], attempt=1)
        assert "INVALID_RECEIPT_HANDLE" in stale["refused"] or "40013" in stale["refused"], stale
        stale = await consumer.answer("changed", change=sent["id"], attempt=1, seconds=1)
        assert "INVALID_RECEIPT_HANDLE" in stale["refused"] or "40013" in stale["refused"], stale
        assert await operator.lag(name, name) == 1
        assert "settled" in await consumer.answer("settled", settle=sent["id"], attempt=2, **how)
        await eventually(lambda: _no_lag(operator, name))


async def _no_lag(operator: Operator, name: str) -> bool:
    return await operator.lag(name, name) == 0
