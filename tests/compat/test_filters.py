"""Filters of official clients: tags and SQL."""

import asyncio
from typing import Any

from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compat.official import Client, bodies, messages

TAGS: dict[str, Any] = {"expression": "a || c"}
SQL: dict[str, Any] = {
    "expression": "price > 10 AND region = 'eu' OR TAGS IN ('c') AND price BETWEEN 11 AND 12",
    "kind": "SQL92",
}
PLACE = "line 1, column {} (position {}): the expression ends; expected: a property"


async def test_filters_are_the_brokers(client: Client, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    groups = [f"{name}-{kind}" for kind in ("tag-simple", "tag-push", "sql-simple", "sql-push")]
    for group in groups:
        await operator.create_group(group)
    kinds = [("a", "9.5", "eu"), ("a", "10.5", "eu"), ("b", "9", "us"), ("c", "11", "us"), ("b", "none", "eu")]
    await client.send(
        [
            each
            for tag, price, region in kinds
            for each in messages(f"{tag} {price}", tag=tag, properties={"price": price, "region": region})
        ]
    )

    async def heard(group: str, count: int, **filter_: Any) -> list[str]:
        async with client.listening(group=group, **filter_) as listener:
            await listener.until_heard(count)
            await eventually(lambda: _settled(group))
        return sorted(bodies(listener.heard))

    async def _settled(group: str) -> bool:
        return await operator.lag(group, name) == 0

    async def received(group: str, count: int, **filter_: Any) -> list[str]:
        return sorted(bodies(await client.receive(count, group=group, **filter_)))

    tagged, found = ["a 10.5", "a 9.5", "c 11"], ["a 10.5", "c 11"]
    got = await asyncio.gather(
        received(groups[0], len(tagged), **TAGS),
        heard(groups[1], len(tagged), **TAGS),
        received(groups[2], len(found), **SQL),
        heard(groups[3], len(found), **SQL),
    )
    assert got == [tagged, tagged, found, found]


async def test_a_filter_that_is_none(client: Client, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    await operator.create_group(name)
    listener = client.begin("listen", expression="price > ", kind="SQL92")
    simple = client.begin("simple", expression="price >= ", kind="SQL92")
    simple.tell(receive=1, invisible_s=10)
    await asyncio.gather(simple.until(1, of="refused"), listener.until(1, of="refused"))
    simple.tell(stop=True)
    await asyncio.gather(simple.done(), listener.done())
    # The user of Python's push consumer is told that it got no settings; what the broker said is in its log.
    for run, place in ((listener, PLACE.format(9, 8)), (simple, PLACE.format(10, 9))):
        assert place in run.results[0]["refused"] or place in client.host.log(), run.results
