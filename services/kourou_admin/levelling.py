"""Levelling: a broker that missed changes of topics and groups while it was away gets them, and resurrects nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from kourou_admin.cluster import Cluster
from kourou_admin.copies import Copies
from kourou_admin.outcomes import succeeded
from kourou_service.refusal import Refused

_logger = structlog.stdlib.get_logger(__name__)

_LOOK_INTERVAL_S = 1.0
"""How often it is looked whether a broker has come: what was deleted while it was away shows until it is levelled."""

_Starts = frozenset[tuple[str, int, int]]


class Levelling:
    def __init__(self, cluster: Cluster, copies: Sequence[Copies[Any]], interval_s: float) -> None:
        """Compares all brokers when one has started, and every `interval_s`."""
        self._cluster = cluster
        self._copies = copies
        self._interval_s = interval_s
        self.levelled = 0
        """Definitions that brokers were given so."""
        self.failures = 0
        """Comparisons that could not be made, or not to the end."""
        self.differing = 0
        """Definitions that brokers still lacked after the last comparison."""
        self._registered = 0

    @property
    def reachable(self) -> int:
        """Brokers that answered when they were last compared, and are still registered."""
        return min(self._registered, *(copies.reachable for copies in self._copies))

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        levelled: _Starts = frozenset()
        due_s = loop.time()
        while True:
            starts = await self._starts()
            self._registered = len(starts)
            if starts and (starts != levelled or loop.time() >= due_s):
                levelled = starts if await self._level() else frozenset()
                due_s = loop.time() + self._interval_s
            await asyncio.sleep(_LOOK_INTERVAL_S)

    async def _starts(self) -> _Starts:
        """Who is registered, by name, id and time of its start."""
        try:
            return frozenset((info.name, info.id, info.started_ms) for info in await self._cluster.brokers())
        except Refused as problem:
            _logger.debug("brokers not known", reason=problem.message)
            return frozenset()

    async def _level(self) -> bool:
        """Whether all that answered are equal now; who did not answer is compared when it is due next."""
        whole = True
        differing = 0
        for copies in self._copies:
            try:
                outcomes = await copies.level()
            except Refused as problem:
                _logger.debug("definitions not compared", reason=problem.message)
                whole = False
                continue
            except Exception:
                _logger.exception("comparing definitions failed; it is tried again")
                whole = False
                continue
            for outcome in outcomes:
                self.levelled += succeeded(outcome)
                differing += not succeeded(outcome)
                whole &= succeeded(outcome)
            for broker in sorted({outcome.broker for outcome in outcomes if succeeded(outcome)}):
                _logger.info("a broker was brought up to date", broker=broker)
        self.differing = differing
        self.failures += not whole
        return whole
