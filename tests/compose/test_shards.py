"""A third shard by the profile, its share of the topics by one command, and out again by another, under load."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.cluster.load import Load
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compose.stack import Stack

SHARD = "broker-c"


async def test_a_shard_is_added_used_and_drained_under_load(stack: Stack, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    for group in (f"{name}-simple", f"{name}-push"):
        await asyncio.to_thread(stack.kourou_inside, "group", "create", group)
    load = Load(stack.namesrv, name, f"{name}-simple", f"{name}-push")
    async with third_shard(stack), load.running():
        await load.progressed(300)
        await asyncio.to_thread(stack.kourou_inside, "topic", "spread", "--topic", name)
        await eventually(lambda: _stored_on_it(load) > 100, 60, what="messages on the new shard")

        out = await asyncio.to_thread(stack.kourou_inside, "broker", "drain", SHARD)
        assert f"broker {SHARD} is out of the cluster and has stopped; nothing is left on it" in out
        shard = stack.container(SHARD)
        await eventually(lambda: shard.status == "exited", 20, what="a stopped container")
        assert shard.inspect()["State"]["ExitCode"] == 0
        before = _stored_on_it(load)
        await load.progressed(300)
        assert _stored_on_it(load) == before
        await load.finish(operator)
    load.check()
    assert not [error for error in load.errors if error.startswith("send")], load.errors
    listed = json.loads(await asyncio.to_thread(stack.kourou_inside, "broker", "list", "--json"))
    assert [row["name"] for row in listed] == ["broker-a", "broker-b"]


@asynccontextmanager
async def third_shard(stack: Stack) -> AsyncIterator[None]:
    profile = ("--profile", SHARD.replace("broker", "shard"))
    up = ("up", "--detach", "--wait", "--no-recreate", SHARD)
    await asyncio.to_thread(lambda: stack.compose(*profile, *up, timeout_s=120))
    try:
        yield
    finally:
        await asyncio.to_thread(stack.compose, *profile, "rm", "--force", "--stop", "--volumes", SHARD)


def _stored_on_it(load: Load) -> int:
    return sum(place.broker == SHARD for place in load.acknowledged.values())
