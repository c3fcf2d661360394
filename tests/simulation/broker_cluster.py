"""Brokers on machines of the simulated network: log, doors and membership are the real code."""

import asyncio
import contextlib
import random
from collections.abc import Generator, Sequence
from typing import Any
from unittest.mock import patch

from kourou.resolver import Resolver
from kourou_broker.core import BrokerCore
from kourou_broker.membership import Membership
from kourou_broker.report import BrokerReport
from kourou_service.listener import Listener
from tests.simulation.cluster import Shard, open_doors, small_settings
from tests.simulation.namesrv_cluster import BROKER_PORT, BROKERS_PORT
from tests.simulation.network import Network


class BrokerMachine:
    def __init__(self, network: Network, name: str, rng: random.Random, namesrvs: Sequence[str]) -> None:
        self.node = network.node(name)
        self._network = network
        listener = Listener.parse(f"local={name}:{BROKER_PORT}")
        settings = small_settings(
            listeners=(listener,),
            namesrv=tuple(f"{namesrv}:{BROKERS_PORT}" for namesrv in namesrvs),
            auto_create_groups=True,
        )
        self.shard = Shard(name, rng, settings)

    @property
    def core(self) -> BrokerCore:
        assert self.shard.core is not None
        return self.shard.core

    async def start(self) -> None:
        await self.shard.start(self.node.restart(), self._serve)

    async def _serve(self, core: BrokerCore) -> None:
        shard, settings = self.shard, self.shard.settings
        engine, transport = self.node.engine(), self.node.transport()
        for listener in settings.listeners:
            engine.listen(str(listener.bind), name=listener.name)
        report = BrokerReport(
            cluster=settings.cluster,
            name=settings.name,
            broker_id=0,
            identity=shard.disk.identity,
            started_ms=shard.clock.now_ms(),
            version="0",
            listeners=settings.listeners,
            permission=core.state.broker.permission,
        )
        membership = Membership(core, report, settings, Resolver(settings.namesrv, self._network.resolve), transport)
        open_doors(core, settings, shard.clock, engine, membership.routes)
        core.start()
        await engine.start()
        await membership.start()


@contextlib.contextmanager
def seeded(seed: int) -> Generator[None, None, None]:
    """What is left to chance in the code under test comes from the seed, too, and the clients' clock from the loop.

    Only the order of sets of strings is the interpreter's: a run replays exactly under the same PYTHONHASHSEED.
    """
    seeds = random.Random(seed)
    real = random.Random

    class Seeded(real):
        def __init__(self, x: Any = None) -> None:
            super().__init__(seeds.getrandbits(64) if x is None else x)

    def time_ns() -> int:
        return 1_700_000_000_000_000_000 + int(asyncio.get_running_loop().time() * 1e9)

    random.seed(seed)
    with patch("random.Random", Seeded), patch("time.time_ns", time_ns), patch("time.time", lambda: time_ns() / 1e9):
        yield
