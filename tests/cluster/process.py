"""A program of ours as a process of its own: its output goes to a file, and it does not outlive its test."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

BIN = Path(sys.executable).parent
START_TIMEOUT_S = 20.0
_POLL_S = 0.02


class Process:
    """Can be started again after its end, with the same arguments. Its methods block: call them in a thread while
    clients run in the loop."""

    def __init__(
        self, name: str, args: Sequence[str], folder: Path, *, ready: str, env: Mapping[str, str] | None = None
    ) -> None:
        """`ready` is what it writes when it serves."""
        self.name = name
        self.args = list(args)
        self._ready = ready
        self._env = {**clean_environment(), **(env or {})}
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.output_path = folder / f"{name}.log"
        self._start_of_output = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """What it wrote since its last start."""
        with self.output_path.open("rb") as file:
            file.seek(self._start_of_output)
            return file.read().decode(errors="replace")

    def launch(self) -> None:
        """Returns at once; see `start`."""
        assert not self.running, f"{self.name} runs already"
        with self.output_path.open("ab") as output:
            self._start_of_output = output.tell()
            # A group of its own: what it starts itself ends with it.
            self._process = subprocess.Popen(
                self.args,
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self) -> None:
        """Returns when it serves."""
        self.launch()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        self.wait_for_output(self._ready, START_TIMEOUT_S)

    def wait_for_output(self, text: str, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while text not in self.output:
            if not self.running:
                raise AssertionError(f"{self.name} ended with {self.wait(1)} before it wrote {text!r}:\n{self.output}")
            if time.monotonic() > deadline_s:
                raise AssertionError(f"{self.name} did not write {text!r} in {timeout_s} s:\n{self.output}")
            time.sleep(_POLL_S)

    def wait(self, timeout_s: float) -> int:
        """Its exit code, when it ends by itself."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """kill -9, of this process alone."""
        self.signal(signal.SIGKILL)
        self.wait(10)

    def end(self, number: signal.Signals = signal.SIGINT, timeout_s: float = 15) -> int:
        """Its exit code, after the signal."""
        self.signal(number)
        return self.wait(timeout_s)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def dispose(self) -> None:
        """Nothing of it is left, in whatever condition it was."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)


def clean_environment() -> dict[str, str]:
    """Without settings of ours that the developer may have."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KOUROU_")}
