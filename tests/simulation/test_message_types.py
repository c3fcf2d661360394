"""Messages of all types through crashes, full disks and operators' hands: order in message groups and lite topics,
nothing early, nothing twice, one end for each.

pytest runs some seeds. For more, or for one that failed:

    python -m tests.simulation.test_message_types --seeds 2000
    python -m tests.simulation.test_message_types --seed 4711
"""

import argparse
import asyncio
import random
from collections import Counter

import pytest
import structlog

from tests.simulation.broker_operators import Auditor, Operator
from tests.simulation.cluster import Shard, small_settings
from tests.simulation.ledger import GroupView
from tests.simulation.test_broker_crashes import NEED_ROOM, ROOMY, Chaos, check_older_snapshot
from tests.simulation.time import simulate
from tests.simulation.typed_clients import LiteConsumer, TypedConsumer, TypedProducer, TypedWorld

SEEDS = 100
SEEDS_A_TEST = 25
NEVER_GIVES_UP = 1000


async def run(seed: int) -> Counter[str]:
    """One seed: some seconds of life with crashes, then peace, and the audit."""
    rng = random.Random(seed)
    lasts_s = rng.choice((3.0, 6.0, 12.0))
    settings = small_settings(
        flush="sync",
        retention_interval_s=1.0,
        retention_hours=0,
        retention_bytes=rng.choice((0, 0, 32 * 1024)),
        snapshot_every_bytes=rng.choice((4, 16)) * 1024,
        segment_bytes=rng.choice((8, 16, 64)) * 1024,
        cache_bytes=rng.choice((0, 4096, 1 << 20)),
        max_pending_messages=rng.choice((4, 1000)),
        transaction_check_after_s=1.0,
        transaction_check_interval_s=2.0,
        transaction_max_checks=4,
    )
    shard = Shard("broker-a", rng, settings)
    queues = rng.randint(1, 3)
    world = TypedWorld(
        shard,
        rng,
        topics={"fifo": queues, "delay": queues, "transaction": 1, "priority": 3, "lite": 1},
        groups=[
            GroupView("ordered", NEVER_GIVES_UP),
            GroupView("ordered-push", NEVER_GIVES_UP, rng.choice((None, frozenset(("a", "b"))))),
            GroupView("simple", rng.choice((2, 16)), rng.choice((None, frozenset(("a", "b"))))),
            GroupView("lite-group", rng.choice((2, NEVER_GIVES_UP)), lite=True),
        ],
        max_body_bytes=rng.choice((10, 500)),
        ordered=("ordered", "ordered-push"),
    )
    if rng.random() < 0.2 and settings.segment_bytes == 64 * 1024:
        shard.disk.capacity_bytes = settings.segment_bytes * rng.randint(2, 4)
        world.ledger.counts["small disks"] += 1
    operator = Operator(world)
    chaos = Chaos(world, lasts_s)
    await shard.start()
    world.ledger.started()
    await operator.create_all()
    ordered, pushed, simple, lite = world.groups
    clients = [
        TypedProducer(world, "producer-1").live(0.5),
        TypedProducer(world, "producer-2").live(1.0),
        TypedConsumer(world, ordered, "ordered-1", ordered=True).live(0.8),
        TypedConsumer(world, ordered, "ordered-2", ordered=True).live(1.5),
        TypedConsumer(world, pushed, "pushed-1", ordered=True, push=True).live(0.8),
        TypedConsumer(world, pushed, "pushed-2", ordered=True, push=True).live(1.5),
        TypedConsumer(world, simple, "simple-1", ordered=False).live(1.0),
        LiteConsumer(world, lite, "lite-1").live(0.8),
        LiteConsumer(world, lite, "lite-2").live(1.5),
        *((world.live(operator.step, 4.0),) if rng.random() < 0.7 else ()),
    ]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client)
        await chaos.run()
        shard.disk.capacity_bytes = ROOMY
        await asyncio.sleep(3.0)
        await chaos.start()
        world.all_sent = True
        await asyncio.sleep(30.0)  # delays end, producers are asked
        world.over = True
    auditor = Auditor(world)
    await auditor.run()
    world.check_held(await auditor.first_offsets())
    assert shard.core is not None
    state = shard.core.state
    await shard.stop()
    await check_older_snapshot(shard, state)
    return world.ledger.counts


def check(seed: int) -> Counter[str]:
    with structlog.testing.capture_logs() as logs:
        counts = simulate(run(seed))
    faults = [entry for entry in logs if entry["log_level"] in ("error", "critical")]
    if counts["small disks"]:
        faults = [entry for entry in faults if not entry["event"].startswith(NEED_ROOM)]
    assert not faults, faults
    return counts


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_A_TEST))
def test_each_message_ends_as_its_type_promises(first: int) -> None:
    total: Counter[str] = Counter()
    for seed in range(first, first + SEEDS_A_TEST):
        try:
            total += check(seed)
        except BaseException:
            print(f"failed with --seed {seed}")
            raise
    assert total["steps"] > 1000, "so few steps show nothing"
    told = [f"told: {fate}" for fate in ("consumed", "filtered", "dead-lettered", "skipped", "recalled", "rolled back")]
    by_clients = ("held", "recalled", "committed", "asked", "withdrawn", "came when it was time", "consumed", "lite")
    for what in (*by_clients, "resets", "resent", *told):
        assert total[what], f"nothing was {what}: this test shows nothing"


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.simulation.test_message_types")
    options.add_argument("--seeds", type=int, default=1000)
    options.add_argument("--first", type=int, default=random.randrange(1 << 30))
    options.add_argument("--seed", type=int, help="only this one")
    asked = options.parse_args()
    first, seeds = (asked.first, asked.seeds) if asked.seed is None else (asked.seed, 1)
    total: Counter[str] = Counter()
    for seed in range(first, first + seeds):
        try:
            total += check(seed)
        except BaseException:
            print(f"failed with --seed {seed}")
            raise
    print(f"{seeds} seeds from {first} on: {dict(total)}")


if __name__ == "__main__":
    main()
