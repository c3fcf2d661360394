"""Where the NameServers are: names resolved again and again to all their addresses, and which one to ask.

A NameServer that is added behind a name is found without touching anybody who was given the name.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
from collections.abc import Awaitable, Callable, Sequence

RESOLVE_INTERVAL_S = 30.0
# For the other names after the first one: all clients would else ask the one that resolves fastest.
_OTHERS_WAIT_S = 0.2
MAX_ADDRESSES = 256
"""Taken of all targets together; whoever has more NameServers than that made a mistake."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host name and a port to all addresses "host:port" behind it; raises OSError when that fails."""


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = dict.fromkeys(str(sockaddr[0]) for _, _, _, _, sockaddr in found)
    return [join_host_port(address, port) for address in addresses]


async def leave_to_grpc(host: str, port: int) -> Sequence[str]:
    """Keeps the name: over TLS the server's certificate is checked for it, and not for the address behind it."""
    return [join_host_port(host, port)]


class Resolver:
    """The addresses behind `targets`, each "host:port". A target that cannot be resolved keeps its last addresses.

    Built without a running loop; resolving begins when `addresses` is first asked for, and ends with `close`.
    Raises ValueError for a target that is not host:port.
    """

    def __init__(
        self, targets: Sequence[str], resolve: Resolve = resolve_by_system, interval_s: float = RESOLVE_INTERVAL_S
    ) -> None:
        self._targets = [split_host_port(target) for target in targets]
        self._resolve = resolve
        self._interval_s = interval_s
        self._found: list[tuple[str, ...]] = [() for _ in targets]
        self._listeners: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._first, self._all = asyncio.Event(), asyncio.Event()

    @property
    def by_target(self) -> list[tuple[str, ...]]:
        """The addresses found last, one tuple a target."""
        return list(self._found)

    @property
    def known(self) -> tuple[str, ...]:
        """The addresses found last, without waiting, in the order of the targets, each once."""
        return tuple(dict.fromkeys(address for found in self._found for address in found))[:MAX_ADDRESSES]

    async def addresses(self) -> tuple[str, ...]:
        """Like `known`, after the first attempt to resolve every target, or shortly after the first one that
        succeeds: a slow name holds up no other. Empty when none could be resolved."""
        self._begin()
        await self._first.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OTHERS_WAIT_S):
                await self._all.wait()
        return self.known

    async def all_addresses(self) -> tuple[str, ...]:
        """Like `addresses`, with those of slow names."""
        self._begin()
        await self._all.wait()
        return self.known

    def on_change(self, callback: Callable[[], None]) -> None:
        """Calls back when the addresses have changed, the first ones included."""
        self._listeners.append(callback)

    async def refresh(self) -> None:
        """Resolves every target now, and takes each as it comes."""
        await asyncio.gather(*map(self._refresh, range(len(self._targets))))
        self._first.set()
        self._all.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_resolving())

    async def _keep_resolving(self) -> None:
        await self.refresh()
        if all(_is_ip_address(host) for host, _ in self._targets):
            return
        while True:
            await asyncio.sleep(self._interval_s)
            await self.refresh()

    async def _refresh(self, index: int) -> None:
        before, found = self._found[index], await self._resolved(index)
        self._found[index] = found
        if found:
            self._first.set()
        if found != before:
            for listener in self._listeners:
                listener()

    async def _resolved(self, index: int) -> tuple[str, ...]:
        host, port = self._targets[index]
        if _is_ip_address(host):
            return (join_host_port(host, port),)
        try:
            # Sorted: name servers answer in changing order, and that is no change.
            return tuple(sorted(await self._resolve(host, port))) or self._found[index]
        except (OSError, UnicodeError):  # the latter for what cannot be a host name at all
            return self._found[index]


class NamesrvList:
    """Which NameServer to ask: a random one, then the next one after each failure.

    With `double_shuffle`, as ZooKeeper's clients do: the names in random order, then the addresses of each name in
    random order, so that a name with many addresses draws no more clients than one with few.
    """

    def __init__(self, rng: random.Random | None = None, *, double_shuffle: bool = False) -> None:
        self._random = rng or random.Random()
        self._double_shuffle = double_shuffle
        self._order: list[str] = []
        self._at = 0

    @property
    def order(self) -> list[str]:
        """All addresses, from the current one on, in the order they will be tried."""
        return self._order[self._at :] + self._order[: self._at]

    @property
    def current(self) -> str | None:
        return self._order[self._at] if self._order else None

    def update(self, by_target: Sequence[Sequence[str]]) -> None:
        """Takes what `Resolver.by_target` says. The current NameServer stays the current one while it is among them."""
        targets = [list(found) for found in by_target]
        if set(self._order) == {address for found in targets for address in found}:
            return
        current = self.current
        if self._double_shuffle:
            self._random.shuffle(targets)
            for found in targets:
                self._random.shuffle(found)
        self._order = list(dict.fromkeys(address for found in targets for address in found))
        if current in self._order:
            self._at = self._order.index(current)
        else:
            self._at = self._random.randrange(len(self._order)) if self._order and not self._double_shuffle else 0

    def failed(self, address: str) -> None:
        """The call to this address failed: the next one is current, unless somebody moved on already."""
        if address == self.current:
            self._at = (self._at + 1) % len(self._order)


def split_host_port(target: str) -> tuple[str, int]:
    """Splits "host:port" or "[v6]:port". Raises ValueError with a sentence for the user."""
    host, _, port = target.strip().rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError(f"{target!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
