"""What one service shows of itself: whose figures they are, where they come from, and whether it is well."""

import asyncio
import socket
from collections.abc import Callable, Sequence

from kourou_service.engine import Engine
from kourou_service.listener import WILDCARDS, HostPort
from kourou_service.metrics.exposition import Node
from kourou_service.metrics.family import Collect, Family, gauge
from kourou_service.metrics.runtime import build_info


def node_id(address: HostPort) -> str:
    """Names a service by where it listens; by the machine's name where it listens on all addresses."""
    return str(HostPort(socket.gethostname(), address.port) if address.host in WILDCARDS else address)


class NodeMetrics:
    """`engines` share their meters, as those of one service do."""

    def __init__(
        self, node: Node, engines: Sequence[Engine], collectors: Sequence[Collect], illness: Callable[[], str | None]
    ) -> None:
        """`illness` says in one line why the service does not serve; None while it does."""
        self.node = node
        self.illness = illness
        self._engines = engines
        self._collectors = collectors

    async def collect(self) -> list[Family]:
        families = [build_info(self._engines[0].kind), self._engines[0].meters.family(), self._watermark()]
        for collect in self._collectors:
            await asyncio.sleep(0)
            families.extend(await collect())
        return families

    def _watermark(self) -> Family:
        under_way = [engine.under_way for engine in self._engines]
        unary, streams = sum(each.unary for each in under_way), sum(each.streams for each in under_way)
        return gauge(
            "rocketmq_processor_watermark",
            "Calls under way.",
            {("unary",): unary, ("stream",): streams},
            ("processor",),
        )
