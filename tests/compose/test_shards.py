"""A third shard by the profile, its share of the topics by one command, and out again by another, under load."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.cluster.load import Load
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compose.container import Container
from tests.compose.engine import docker
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

        drained = await asyncio.to_thread(
            docker, "exec", stack.container("admin").id, "kourou", "broker", "drain", SHARD
        )
        assert f"broker {SHARD} is out of the cluster and has stopped; nothing is left on it" in drained.stdout
        # It is told on the way how far that is; consumers that keep up may leave nothing to wait for.
        for progress in ("writes are off", "all is consumed", "reads are off, too"):
            assert progress in drained.stderr
        shard = stack.container(SHARD)
        await _exited(shard)
        before = _stored_on_it(load)
        assert before > 100
        await load.progressed(300)
        assert _stored_on_it(load) == before
        await load.finish(operator)
        await _nothing_was_left(stack, operator, shard, name)
    load.check()
    assert not [error for error in load.errors if error.startswith("send")], load.errors
    listed = json.loads(await asyncio.to_thread(stack.kourou_inside, "broker", "list", "--json"))
    assert [row["name"] for row in listed] == ["broker-a", "broker-b"]


async def _nothing_was_left(stack: Stack, operator: Operator, shard: Container, topic: str) -> None:
    """The drained shard is started again, to look into it."""
    await asyncio.to_thread(shard.start)
    await eventually(lambda: _holds(operator, topic), 30, what="the drained shard's queues")
    for group in (f"{topic}-simple", f"{topic}-push"):
        for (broker, _), progress in (await operator.progress(group, topic)).items():
            assert broker != SHARD or (progress.lag, progress.inflight) == (0, 0), progress
    assert "NONE" in (await asyncio.to_thread(stack.kourou_inside, "broker", "list")).upper()
    # Out again, by the same command.
    await asyncio.to_thread(stack.kourou_inside, "broker", "drain", SHARD)
    await _exited(shard)
    await asyncio.to_thread(stack.check_logs)


async def _holds(operator: Operator, topic: str) -> bool:
    return any(broker == SHARD for broker, _ in await operator.progress(f"{topic}-simple", topic))


async def _exited(shard: Container) -> None:
    await eventually(lambda: shard.status == "exited", 20, what="a stopped container")
    assert shard.inspect()["State"]["ExitCode"] == 0


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
