"""When a NameServer that just started may answer for routes: half a route is worse than none.

It is open as soon as every broker named by those that registered has registered itself, or after a patience.
"""

import asyncio
from collections.abc import Callable, Iterable

from kourou_namesrv.registry import Registry, TopicKey


class Readiness:
    def __init__(self, registry: Registry, patience_s: float) -> None:
        self._registry = registry
        self._patience_s = patience_s
        self._listeners: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.open = False
        self._registered: set[str] = set()
        self._named: set[str] = set()
        registry.on_change(self._check)

    def on_open(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def start(self) -> None:
        """The patience begins."""
        self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._open)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def missing(self) -> list[str]:
        """The brokers that are waited for, by name."""
        return sorted(self._named - self._registered)

    def _check(self, _: Iterable[TopicKey]) -> None:
        if self.open:
            return
        for broker in self._registry.brokers:
            # One that said goodbye meanwhile counts: it was here, and is away on purpose.
            self._registered.add(broker.key.name)
            self._named |= broker.known_brokers
        if self._registered and not self.missing():
            self._open()

    def _open(self) -> None:
        if self.open:
            return
        self.open = True
        self.close()
        for listener in self._listeners:
            listener()
