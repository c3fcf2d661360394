"""A process under measurement: pinned to a core, ended whatever happens, its memory and CPU time read from /proc."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = _CORES[0]
LOAD_CORE = _CORES[-1]
"""Another one than the servers', if there is one."""
STOP_TIMEOUT_S = 20.0
_IDLE_SHARE = 0.05
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_ROOT = Path(__file__).parent.parent


class ProcessError(Exception):
    """A process ended that should not have; the message holds the end of what it wrote to stderr."""


class Process:
    """Started when made, ended by the end of its `with` block."""

    def __init__(self, name: str, command: Sequence[str], log: Path, *, core: int | None) -> None:
        """`core`: None leaves the process on all of them. What it writes to stderr goes to `log`."""
        self.name = name
        self._log = log
        with log.open("ab") as errors:
            self._popen = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=_ROOT,
                text=True,
                preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, [core]),
            )

    @classmethod
    def python(cls, module: str, *args: str, log: Path, core: int | None) -> Self:
        return cls(module, [sys.executable, "-m", module, *args], log, core=core)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None):
        self.stop()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def next_line(self) -> str:
        """The next line of its stdout. Raises ProcessError if it ends without one."""
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline().strip()
        if not line:
            self._popen.wait(STOP_TIMEOUT_S)
            self.check_alive()
        return line

    def output(self) -> str:
        """All of its stdout, when it has ended. Raises ProcessError if it failed."""
        output, _ = self._popen.communicate()
        if self._popen.returncode:
            raise self._ended()
        return output

    def check_alive(self) -> None:
        """Raises ProcessError if it has ended."""
        if self._popen.poll() is not None:
            raise self._ended()

    def stop(self) -> None:
        """Asks it to end, and kills it if it does not."""
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._popen.stdout is not None:
            self._popen.stdout.close()

    def kill(self) -> None:
        """As kill -9 does."""
        self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()

    def rss_bytes(self) -> int:
        """Its resident memory."""
        return self.rss_by_process()[self.pid]

    def peak_rss_bytes(self) -> int:
        """The most that was resident since its start."""
        return _status_kib(self.pid, "VmHWM") * 1024

    def rss_by_process(self) -> dict[int, int]:
        """Resident memory of it and of its children, in bytes by process id."""
        return {pid: _status_kib(pid, "VmRSS") * 1024 for pid in [self.pid, *self._children()]}

    def cpu_s(self) -> float:
        """CPU time it used until now, all threads, without children."""
        return cpu_s(self.pid)

    def wait_idle(self, timeout_s: float) -> None:
        """Returns when it and its children have used hardly any CPU time for a second, or after the time-out."""
        until, before_s = time.monotonic() + timeout_s, self._family_cpu_s()
        while time.monotonic() < until:
            time.sleep(1)
            now_s = self._family_cpu_s()
            if now_s - before_s < _IDLE_SHARE:
                return
            before_s = now_s

    def _family_cpu_s(self) -> float:
        return sum(map(cpu_s, [self.pid, *self._children()]))

    def _children(self) -> list[int]:
        lists = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(pid) for children in lists for pid in children.read_text().split()]

    def _ended(self) -> ProcessError:
        tail = self._log.read_text(errors="replace")[-4000:]
        return ProcessError(f"{self.name} ended with exit code {self._popen.returncode}:\n{tail}")


def cpu_s(pid: int) -> float:
    """CPU time a process used until now, all threads, without children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _status_kib(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0
