"""A process under measurement: pinned to a core, ended whatever happens, its memory and CPU time read from /proc."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
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

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        core: int | None,
        environment: Mapping[str, str] | None = None,
        quiet: bool = False,
    ) -> None:
        """`core`: None leaves the process on all of them. `environment`: added to this process's own. What it writes
        to stderr goes to `log`; `quiet`: and what it writes to stdout, which nobody reads then."""
        self.name = name
        self._log = log
        with log.open("ab") as errors:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=errors if quiet else subprocess.PIPE,
                stderr=errors,
                cwd=_ROOT,
                env={**os.environ, **(environment or {})},
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

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def has_output(self, timeout_s: float) -> bool:
        """Waits for something to read on its stdout, or for its end. Not for one that may print two lines at once."""
        assert self._popen.stdout is not None
        return bool(select.select([self._popen.stdout], [], [], timeout_s)[0])

    def say(self, line: str) -> None:
        """Writes a line to its stdin."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()

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
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

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
    return _cpu_s(pid, waited_for=False)


def _cpu_s(pid: int, *, waited_for: bool) -> float:
    """`waited_for`: with the children that have ended and were waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11 : 15 if waited_for else 13]) / _TICKS_PER_S


def tree_of(pid: int) -> Iterator[int]:
    """The process and all that descend from it."""
    yield pid
    with _may_have_ended():
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from tree_of(int(child))


def tree_cpu_s(pid: int) -> float:
    """CPU time that the process and its descendants used until now, with those that have ended."""
    total_s = 0.0
    for each in tree_of(pid):
        with _may_have_ended():
            total_s += _cpu_s(each, waited_for=True)
    return total_s


def tree_memory_bytes(pid: int) -> tuple[int, int]:
    """Resident memory of the process and its descendants, pages that they share for each; and how much of it is their
    own, which leaves out mapped files: the kernel takes those pages back when it needs them."""
    resident = own = 0
    for each in tree_of(pid):
        with _may_have_ended():
            resident += _status_kib(each, "VmRSS") * 1024
            own += (_status_kib(each, "RssAnon") + _status_kib(each, "RssShmem")) * 1024
    return resident, own


@contextlib.contextmanager
def _may_have_ended() -> Iterator[None]:
    """Descendants come and go while they are looked at."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        yield


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _status_kib(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0
