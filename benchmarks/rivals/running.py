"""An application at work beside the servers, watched: whichever of them ends, the run hears it at once."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.process import LOAD_CORE, Process, ProcessError
from benchmarks.rivals.applications.work import Order
from benchmarks.rivals.system import Servers

_WATCH_S = 0.2
_DEATH_IS_KNOWN_S = 1.0
LOADED_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Host:
    """Where applications of a system run."""

    system: str
    python: Path
    folder: Path


class RunningApplication:
    """Loaded when made; ended at the end of the `with` block."""

    def __init__(self, host: Host, servers: Servers) -> None:
        self._servers = servers
        command = [str(host.python), "-m", "benchmarks.rivals.applications", host.system]
        log = host.folder / "application.log"
        home = {"HOME": str(host.folder)}  # RocketMQ's client has its logs there
        self._process = Process(f"application of {host.system}", command, log, core=LOAD_CORE, environment=home)
        try:
            self._expect("ready", LOADED_TIMEOUT_S)
        except BaseException:
            self._process.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None):
        self._process.stop()

    def begin(self, order: Order) -> None:
        self._process.say(json.dumps(order.as_json()))

    def wait_connected(self, timeout_s: float) -> None:
        self._expect("connected", timeout_s)

    def result(self, timeout_s: float) -> dict[str, float]:
        """Raises ProcessError if it or one of the servers ends before, TimeoutError."""
        return json.loads(self._line(timeout_s))

    def _expect(self, expected: str, timeout_s: float) -> None:
        if (line := self._line(timeout_s)) != expected:
            raise ProcessError(f"{self._process.name} said {line!r} instead of {expected!r}")

    def _line(self, timeout_s: float) -> str:
        until = time.monotonic() + timeout_s
        while not self._process.has_output(_WATCH_S):
            self._servers.check_alive()
            if time.monotonic() > until:
                raise TimeoutError(f"{self._process.name} has no result after {timeout_s:g} s")
        try:
            return self._process.next_line()
        except ProcessError:
            # Often it failed because a server did, which is then the cause to tell.
            time.sleep(_DEATH_IS_KNOWN_S)
            self._servers.check_alive()
            raise
