"""A server that dies, and an application that fails, are heard at once, with the end of what they wrote."""

import sys
from pathlib import Path

import pytest

from benchmarks.process import ProcessError
from benchmarks.rivals.applications.work import Order
from benchmarks.rivals.running import Host, RunningApplication
from benchmarks.rivals.system import Participant, Servers
from benchmarks.rivals.turn import half_of_maximum

PARTICIPANT = Participant("somebody", "none", "none")
SLEEPS = "import time; time.sleep(600)"
DIES_WHEN_TOLD = "import sys; sys.stdin.readline(); sys.exit('the disk is gone')"


class OneServer(Servers):
    program = SLEEPS

    @property
    def address(self) -> str:
        return "127.0.0.1:1"

    def start(self) -> None:
        self.spawn("server", [sys.executable, "-c", self.program])


def application(python: str, servers: Servers, tmp_path: Path) -> RunningApplication:
    """It runs `python` instead of what the benchmark would run."""
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\n{python}\n")
    program.chmod(0o755)
    return RunningApplication(Host("somebody", program, tmp_path), servers)


def test_a_server_that_dies_ends_the_wait_for_the_application(tmp_path: Path) -> None:
    with OneServer(tmp_path / "servers", PARTICIPANT, tmp_path) as servers:
        servers.program = DIES_WHEN_TOLD
        servers.start()
        with application("import time; print('ready', flush=True); time.sleep(600)", servers, tmp_path) as running:
            servers.processes[0].say("now")
            with pytest.raises(ProcessError, match=r"(?s)server ended with exit code 1.*the disk is gone"):
                running.result(60)


def test_an_application_that_fails_because_the_server_died_is_not_blamed(tmp_path: Path) -> None:
    with OneServer(tmp_path / "servers", PARTICIPANT, tmp_path) as servers:
        servers.program = "raise SystemExit('the disk is gone')"
        with pytest.raises(ProcessError, match="the disk is gone"):  # noqa: PT012
            servers.start()
            with application("print('ready', flush=True); raise OSError('reset')", servers, tmp_path) as running:
                running.result(60)


def test_an_application_that_fails_says_why(tmp_path: Path) -> None:
    with OneServer(tmp_path / "servers", PARTICIPANT, tmp_path) as servers:
        servers.start()
        program = "print('ready', flush=True); input(); raise OSError('refused')"
        with application(program, servers, tmp_path) as running:
            running.begin(Order("publish", servers.address))
            with pytest.raises(ProcessError, match="OSError: refused"):
                running.result(60)


def test_an_application_without_a_result_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with (
        OneServer(tmp_path / "servers", PARTICIPANT, tmp_path) as servers,
        application("import time; print('ready', flush=True); time.sleep(600)", servers, tmp_path) as running,
        pytest.raises(TimeoutError, match="no result"),
    ):
        running.result(0.1)


def test_cpu_time_and_memory_are_those_of_all_processes(tmp_path: Path) -> None:
    """The child takes both, and its parent waits for it."""
    busy = "import time; a = b'x' * (64 << 20)\nwhile time.process_time() < 0.3: pass\ninput()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    with OneServer(tmp_path / "servers", PARTICIPANT, tmp_path) as servers:
        servers.program = parent
        servers.start()
        servers.wait_until("is busy", lambda: servers.cpu_s() >= 0.3)
        assert 64 << 20 <= servers.memory_bytes().own <= servers.memory_bytes().resident


def test_half_of_the_maximum_is_half_of_what_can_be_done_both_at_once() -> None:
    assert half_of_maximum(100, 100) == 25
    assert half_of_maximum(1e9, 100) == pytest.approx(50)
