"""What the simulated network is made of: machines, cuts between them, and calls that are two ordered pipes."""

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from grpc import StatusCode

from kourou.transport import RpcError
from tests.simulation.time import Process

# The network belongs to no process: it goes on when one is killed.
_NETWORK = contextvars.Context()


@dataclass
class NetworkOptions:
    min_latency_s: float = 0.000_1
    max_latency_s: float = 0.002
    connect_timeout_s: float = 5.0
    """How long a call to a node that is cut off tries before it fails, certainly not sent."""
    keepalive_s: float = 30.0
    """How long a call that runs survives a cut."""


class Server(Protocol):
    """Whoever listens on an address."""

    process: Process

    def accept(self, call: Any) -> None: ...


class Machine:
    """One host of the network, which runs one process at a time; servers listen on its addresses."""

    def __init__(self, wire: "Wire", name: str) -> None:
        self.wire = wire
        self.name = name
        self.servers: dict[str, Server] = {}
        self.process = self._new_process()

    def kill(self) -> None:
        """As kill -9: the process does nothing more, and its peers see their connections reset."""
        self.process.kill()

    def restart(self) -> Process:
        """A new process on this host, with nothing started in it; kills the old one if it runs."""
        self.kill()
        self.process = self._new_process()
        return self.process

    def _new_process(self) -> Process:
        process = Process(self.name)
        process.on_kill(self._killed)
        return process

    def _killed(self) -> None:
        self.servers.clear()
        self.wire.reset_calls_of(self)


class Wire:
    """Cuts, latency and the calls under way."""

    def __init__(self, seed: int, options: NetworkOptions) -> None:
        self.options = options
        self._random = random.Random(seed)
        self._cuts: set[frozenset[str]] = set()
        self._calls: dict[Call, None] = {}  # in the order they were opened

    def cut(self, a: str, b: str) -> None:
        """Nothing passes between the two any more, in either direction; what is sent waits for heal()."""
        self._cuts.add(frozenset((a, b)))
        for call in [call for call in self._calls if call.between(a, b)]:
            call.hold(self.options.keepalive_s)

    def heal(self, a: str, b: str) -> None:
        self._cuts.discard(frozenset((a, b)))
        for call in [call for call in self._calls if call.between(a, b)]:
            call.resume()

    def heal_all(self) -> None:
        for pair in sorted(sorted(pair) for pair in self._cuts):
            self.heal(*pair)

    def is_cut(self, a: str, b: str) -> bool:
        return frozenset((a, b)) in self._cuts

    def latency_s(self) -> float:
        return self._random.uniform(self.options.min_latency_s, self.options.max_latency_s)

    def add(self, call: "Call") -> None:
        self._calls[call] = None

    def remove(self, call: "Call") -> None:
        self._calls.pop(call, None)

    def reset_calls_of(self, dead: Machine) -> None:
        for call in [call for call in self._calls if dead in (call.client, call.server)]:
            call.reset(dead)


class Call:
    """One call between two machines: two ordered pipes, and the ends that either side sees."""

    def __init__(self, client: Machine, server: Machine, address: str) -> None:
        self.client, self.server, self.address = client, server, address
        self.client_process = client.process
        self.server_process = server.process
        self.wire = client.wire
        self.up = Pipe(self)
        self.down = Pipe(self)
        self.accepted = False
        self.broken: Callable[[RpcError], None] = lambda _: None
        """What the client does when the connection breaks."""
        self.gone: Callable[[], None] = lambda: None
        """What the server does when the client is gone."""
        self._break_timer: asyncio.TimerHandle | None = None
        self.wire.add(self)
        if self.is_cut():
            self.hold(self.wire.options.connect_timeout_s)

    def between(self, a: str, b: str) -> bool:
        return {a, b} == {self.client.name, self.server.name}

    def is_cut(self) -> bool:
        return self.wire.is_cut(self.client.name, self.server.name)

    def hold(self, patience_s: float) -> None:
        if self._break_timer is None:
            self._break_timer = _later(patience_s, self._break)

    def resume(self) -> None:
        if self._break_timer is not None:
            self._break_timer.cancel()
            self._break_timer = None
        self.up.flush()
        self.down.flush()

    def reset(self, dead: Machine) -> None:
        """One side is dead: the other one learns it, unless they are cut apart (then its keep-alive finds out)."""
        if self.is_cut():
            return
        if dead is self.server:
            _later(self.wire.latency_s(), self._client_sees, "connection reset")
        else:
            _later(self.wire.latency_s(), self._server_sees)

    def end(self) -> None:
        if self._break_timer is not None:
            self._break_timer.cancel()
        self.wire.remove(self)

    def _break(self) -> None:
        self._client_sees("no answer to keep-alive pings")
        self._server_sees()

    def _client_sees(self, details: str) -> None:
        self.end()
        run_in(self.client_process, self.broken, RpcError(StatusCode.UNAVAILABLE, details, sent=self.accepted))

    def _server_sees(self) -> None:
        self.end()
        run_in(self.server_process, self.gone)


class Pipe:
    """One direction of a call: what is sent arrives in order, later, and not while the two are cut apart."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._arrives_s = 0.0
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def send(self, deliver: Callable[..., None], *what: Any) -> None:
        """Calls deliver(*what) when it arrives, as part of no process."""
        loop = asyncio.get_running_loop()
        self._arrives_s = max(self._arrives_s, loop.time() + self._call.wire.latency_s())
        self._waiting.append((deliver, what))
        _later(self._arrives_s - loop.time(), self._arrive)

    def flush(self) -> None:
        for _ in self._waiting:
            _later(self._call.wire.latency_s(), self._arrive)

    def _arrive(self) -> None:
        if self._waiting and not self._call.is_cut():
            deliver, what = self._waiting.popleft()
            deliver(*what)


def run_in(process: Process, callback: Callable[..., None], *arguments: Any) -> None:
    """Soon, as part of the process; not at all if it is dead."""
    asyncio.get_running_loop().call_soon(callback, *arguments, context=process.context.copy())


def _later(delay_s: float, callback: Callable[..., None], *arguments: Any) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(delay_s, callback, *arguments, context=_NETWORK.copy())
