"""What the benchmark knows of a system: how it is installed, how its servers start, in which forms it takes part."""

import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from benchmarks.process import SERVER_CORE, Process, tree_cpu_s, tree_memory_bytes

READY_TIMEOUT_S = 90.0
GROUP = "readers"
QUEUES = 8
"""Queues (partitions) of a topic, where there are any: as many in each system."""


class NotInstalled(Exception):
    """The message says what is missing."""


@dataclass(frozen=True)
class Participant:
    """A system in one configuration, and the door by which its clients come."""

    name: str
    durability: str
    """What is true of a message when its publisher gets the acknowledgement."""
    configuration: str
    """What differs from the defaults, in words."""
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    """For its servers, in their own terms."""
    door: str = ""
    """For its application, if there is a choice."""
    warmup_s: float = 1.0
    """Load before the first figure; a virtual machine compiles meanwhile what it will run."""
    compiled: bool = False
    """It speaks apache.rocketmq.v2: the compiled load program drives it, too."""


class Memory(NamedTuple):
    resident: int
    own: int
    """Without the pages of mapped files, which the kernel takes back when it needs them."""


class Servers(ABC):
    """All processes of one participant, on an empty folder and one core. Ended by the end of the `with` block."""

    def __init__(self, folder: Path, participant: Participant, installed: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.participant = participant
        self.installed = installed
        self.processes: list[Process] = []

    @property
    @abstractmethod
    def address(self) -> str:
        """Where its application connects."""

    @property
    def compiled_address(self) -> str:
        """Where the compiled load program connects."""
        return self.address

    def prepare(self) -> None:
        """What is done once for an installation, before the first start."""
        return

    @abstractmethod
    def start(self) -> None:
        """Returns when clients can connect. Raises ProcessError, TimeoutError."""

    def create_topics(self, names: Sequence[str]) -> None:
        """Nothing where the application itself does it."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            if process.running:
                process.kill()  # what it would still write is thrown away
            process.stop()

    def spawn(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
        process = Process(
            name, command, self.folder / f"{name}.log", core=SERVER_CORE, environment=environment, quiet=True
        )
        self.processes.append(process)
        return process

    def check_alive(self) -> None:
        """Raises ProcessError with the end of its log if one of them has ended."""
        for process in self.processes:
            process.check_alive()

    def cpu_s(self) -> float:
        """Raises ProcessError: one that has ended would seem to cost nothing."""
        self.check_alive()
        return sum(tree_cpu_s(process.pid) for process in self.processes)

    def memory_bytes(self) -> Memory:
        """Raises ProcessError."""
        self.check_alive()
        each = [tree_memory_bytes(process.pid) for process in self.processes]
        return Memory(sum(resident for resident, _ in each), sum(own for _, own in each))

    def wait_listening(self, address: str) -> None:
        host, port = address.split(":")
        self.wait_until(f"listens at {address}", lambda: _connects(host, int(port)))

    def wait_until(self, what: str, done: Callable[[], bool]) -> None:
        until = time.monotonic() + READY_TIMEOUT_S
        while not done():
            self.check_alive()
            if time.monotonic() > until:
                raise TimeoutError(f"{self.participant.name}: nobody {what} after {READY_TIMEOUT_S:g} s")
            time.sleep(0.01)


@dataclass(frozen=True)
class System:
    name: str
    participants: tuple[Participant, ...]
    servers: type[Servers]
    install: Callable[[Path], Path]
    """Puts into a folder of the cache what is missing, and says where it is. Raises NotInstalled."""
    missing: Callable[[Participant], str] = lambda participant: ""
    """Why a participant cannot take part although the system is there; empty: it can."""


def _connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
