"""A broker that crashes at any write, on a disk that loses, tears and reorders what was not synced, and its clients.

pytest runs a few hundred seeds. For more, or for one that failed:

    python -m tests.simulation.test_broker_crashes --seeds 2000
    python -m tests.simulation.test_broker_crashes --seed 4711
"""

import argparse
import asyncio
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
import structlog

from kourou_broker.state import State
from kourou_broker.state.fold import GENERATIONS
from tests.simulation.broker_clients import Consumer, Producer, World
from tests.simulation.broker_operators import Auditor, Operator
from tests.simulation.cluster import Shard, small_settings
from tests.simulation.disk import PowerCut
from tests.simulation.ledger import GroupView
from tests.simulation.time import simulate

SEEDS = 300
SEEDS_A_TEST = 50
MAX_FAILURES = 20
ROOMY = 1 << 40
"""Bytes of a disk that never fills."""
MAX_PEACE_S = 12.0
NEED_ROOM = ("retention or a snapshot failed", "a segment could not be indexed")
CRASHES = ("power at a write", "power at a write", "power", "kill", "stop")


class Chaos:
    """Crashes and restarts the broker."""

    def __init__(self, world: World, lasts_s: float) -> None:
        self._world = world
        self._lasts_s = lasts_s
        self._crashed = asyncio.Event()
        # With flush=async, what is answered survives a kill and not a power cut.
        self._keeps_power = world.shard.settings.flush == "async"
        world.shard.on_crash = self._crashed.set

    async def run(self) -> None:
        world, rng, shard = self._world, self._world.rng, self._world.shard
        ends_s = world.now_s + self._lasts_s
        while world.now_s < ends_s:
            how = rng.choice(("kill", "stop") if self._keeps_power else CRASHES)
            self._crashed.clear()
            if how == "power at a write":
                shard.disk.power_cut_at = shard.disk.changes + rng.randint(1, 30)
            await self._wait_for_crash(rng.random() * min(self._lasts_s, MAX_PEACE_S))
            await self._end(how)
            world.ledger.counts[how] += 1
            await world.pause(1.0)
            await self.start()

    async def _wait_for_crash(self, timeout_s: float) -> None:
        crash = asyncio.ensure_future(self._crashed.wait())
        await asyncio.wait((crash,), timeout=timeout_s)
        crash.cancel()

    async def _end(self, how: str) -> None:
        shard = self._world.shard
        shard.disk.power_cut_at = None
        if shard.core is None:
            self._world.ledger.died()
        elif how == "stop":
            state = shard.core.state
            await shard.stop()
            self._world.ledger.died(cleanly=True)
            before = facts(state)
            shard.on_recovered = lambda state: _same(before, facts(state))
        else:
            if how == "kill":
                shard.kill()
            else:
                shard.cut_power()
            self._world.ledger.died()

    async def start(self) -> None:
        """Power may go during recovery, too."""
        shard, rng = self._world.shard, self._world.rng
        while shard.core is None:
            if rng.random() < 0.3 and not self._keeps_power:
                shard.disk.power_cut_at = shard.disk.changes + rng.randint(1, 5)
            try:
                await shard.start()
            except PowerCut:
                continue
            except OSError:  # not even an empty segment fits: somebody makes room
                shard.kill()
                shard.disk.capacity_bytes += shard.settings.segment_bytes
        shard.disk.power_cut_at = None
        shard.on_recovered = lambda _state: None
        self._world.ledger.started()


def _same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for what, said in before.items():
        assert after[what] == said, f"{what} were {said}, and the log folds to {after[what]}"


def facts(state: State) -> dict[str, Any]:
    """All that a state says, in a form that can be compared."""
    return {
        "topics": {
            topic.name: (
                topic.definition.SerializeToString(deterministic=True),
                [
                    (
                        queue.first_offset,
                        queue.next_offset,
                        {at: (c.position, c.length) for at, c in queue.carried.items()},
                        queue.resent and (queue.resent.below, sorted(queue.resent.offsets)),
                    )
                    for queue in topic.all_queues()
                ],
                topic.lite
                and {lite.name: (lite.queue.id, lite.last_stored_ms) for lite in topic.lite.by_name.values()},
            )
            for topic in state.topics.values()
        },
        "groups": {
            name: group.definition.SerializeToString(deterministic=True) for name, group in state.groups.items()
        },
        "tombstones": {**state.topic_tombstones, **state.group_tombstones},
        "broker": state.broker,
        "half messages": {
            (topic, transaction): (
                half.place,
                half.message_id,
                half.stored_ms,
                half.next_check_ms,
                half.checks,
            )
            for topic, transaction, half in state.half_messages
        },
        "timers": {topic: list(timers) for topic, timers in state.timers.items()},
        "ids": (state.next_topic_id, state.next_group_id),
        "progress": {
            key: (
                progress.high,
                progress.low,
                {
                    offset: (lease.incarnation, lease.number, lease.deadline_ms, lease.attempt, lease.auto_renew)
                    for offset, lease in progress.pending.items()
                },
            )
            for key, progress in state.progress.items()
        },
    }


async def run(seed: int, lasts_s: float | None = None) -> Counter[str]:
    """One seed: some seconds of life with crashes, then peace, and the audit."""
    rng = random.Random(seed)
    chosen_s = rng.choice((2.0, 4.0, 7.0))
    lasts_s = lasts_s or chosen_s
    settings = small_settings(
        auto_create_groups=True,
        flush=rng.choice(("sync", "sync", "sync", "async")),
        retention_interval_s=1.0,
        retention_hours=0,
        retention_bytes=rng.choice((0, 16 * 1024, 32 * 1024)),
        snapshot_every_bytes=rng.choice((4, 16)) * 1024,
        segment_bytes=rng.choice((8, 16, 64)) * 1024,
        cache_bytes=rng.choice((0, 4096, 1 << 20)),
        max_pending_messages=rng.choice((4, 1000)),
    )
    shard = Shard("broker-a", rng, settings)
    world = World(
        shard,
        rng,
        topics={"orders": rng.randint(1, 3), "events": 1},
        groups=[
            GroupView("simple", rng.choice((1, 2, 16))),
            GroupView("push", rng.choice((2, 16)), rng.choice((None, frozenset(("a", "b"))))),
        ],
        max_body_bytes=rng.choice((10, 500, 1500)),
    )
    if rng.random() < 0.5 and settings.segment_bytes == 64 * 1024:  # smaller ones have no reserve to speak of
        shard.disk.capacity_bytes = settings.segment_bytes * rng.randint(2, 4)
        world.ledger.counts["small disks"] += 1
    chaos = Chaos(world, lasts_s)
    operator = Operator(world)
    await shard.start()
    world.ledger.started()
    await operator.create_all()
    simple, push = world.groups
    clients: list[Coroutine[Any, Any, None]] = [
        world.live(Producer(world, "producer-1").step, 0.8),
        world.live(Producer(world, "producer-2").step, 2.0),
        Consumer(world, simple, "simple-1").live(1.5),
        Consumer(world, simple, "simple-2").live(3.0),
        Consumer(world, push, "push-1", push=True).live(1.5),
        Consumer(world, push, "push-2", push=True).live(3.0),
        world.live(operator.step, 4.0),
    ]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client)
        await chaos.run()
        shard.disk.capacity_bytes = ROOMY
        await asyncio.sleep(3.0)
        await chaos.start()
        world.over = True
    await Auditor(world).run()
    assert shard.core is not None
    state = shard.core.state
    await shard.stop()
    await check_older_snapshot(shard, state)
    return world.ledger.counts


async def check_older_snapshot(shard: Shard, state: State) -> None:
    """From the generation before, the log folds to the same state; from nothing, too, while it is whole."""
    shard.on_recovered = lambda found: _same(facts(state), facts(found))
    snapshots = sorted((name for name in shard.disk.blobs if name.startswith("snapshot-")), reverse=True)
    for number, name in enumerate(snapshots, 1):
        del shard.disk.blobs[name]
        if number < min(len(snapshots), GENERATIONS) or 0 in shard.disk.segments:
            await shard.start()
            shard.kill()


def check(seed: int, lasts_s: float | None = None) -> Counter[str]:
    with structlog.testing.capture_logs() as logs:
        counts = simulate(run(seed, lasts_s))
    faults = [entry for entry in logs if entry["log_level"] in ("error", "critical")]
    if counts["small disks"]:
        faults = [entry for entry in faults if not entry["event"].startswith(NEED_ROOM)]
    assert not faults, faults
    return counts


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_A_TEST))
def test_crashes_lose_nothing_and_bring_nothing_back(first: int) -> None:
    total: Counter[str] = Counter()
    for seed in range(first, first + SEEDS_A_TEST):
        try:
            total += check(seed)
        except BaseException:
            print(f"failed with --seed {seed}")
            raise
    assert total["steps"] > 2000, "so few steps show nothing"
    for fate in ("consumed", "filtered", "dead-lettered", "skipped"):
        assert total[f"told: {fate}"], f"no message was {fate}: this test shows nothing of it"


def test_a_long_life_of_thousands_of_steps() -> None:
    counts = check(seed=1, lasts_s=400.0)
    assert counts["steps"] > 2000, counts


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.simulation.test_broker_crashes")
    options.add_argument("--seeds", type=int, default=1000)
    options.add_argument("--first", type=int, default=random.randrange(1 << 30))
    options.add_argument("--seed", type=int, help="only this one")
    options.add_argument("--keep-going", action="store_true")
    asked = options.parse_args()
    seeds = range(asked.first, asked.first + asked.seeds) if asked.seed is None else range(asked.seed, asked.seed + 1)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    total: Counter[str] = Counter()
    failed = 0
    for seed in seeds:
        try:
            total += check(seed)
        except BaseException as problem:
            failed += 1
            if asked.keep_going and failed < MAX_FAILURES:
                print(f"--seed {seed}: {short(problem)}")
                continue
            traceback.print_exc()
            print(f"failed with --seed {seed}")
            sys.exit(1)
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    rate = len(seeds) / took_s * 60
    print(f"{len(seeds)} seeds from {seeds[0]} on, {failed} failed, {took_s:.1f} s, {rate:.0f} seeds a minute")
    print(f"{cpu_s / len(seeds) * 1000:.1f} ms of processor time a seed")
    print(dict(total))


def short(problem: BaseException) -> str:
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return f"{type(problem).__name__}: {problem}"[:400]


if __name__ == "__main__":
    main()
