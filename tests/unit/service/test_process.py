"""A service as a process: exit codes, signals, one-line errors."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

BODY = """
import asyncio, sys
from kourou_service.logs import configure_logging
from kourou_service.process import UserError, run_process

async def service(stop):
    configure_logging("info", "json")
    match sys.argv[1]:
        case "wait":
            print("ready", flush=True)
            await stop.wait()
            print("stopped", flush=True)
        case "stubborn":
            print("ready", flush=True)
            await stop.wait()
            print("stopping", flush=True)
            await asyncio.sleep(60)
        case "user-error":
            raise UserError("the data folder is locked")
        case "port-taken":
            raise OSError("cannot listen on 127.0.0.1:8081: address already in use")
        case "fault":
            raise RuntimeError("a fault of ours")

sys.exit(run_process("kourou example", service))
"""


def start(case: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", textwrap.dedent(BODY), case]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly(number: signal.Signals):
    process = start("wait")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_a_second_interrupt_ends_it_at_once():
    process = start("stubborn")
    assert process.stdout is not None
    for word in ("ready", "stopping"):
        assert process.stdout.readline() == word + "\n"
        os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("case", "code", "said"),
    [
        ("user-error", 1, "kourou example: the data folder is locked\n"),
        ("port-taken", 1, "kourou example: cannot listen on 127.0.0.1:8081: address already in use\n"),
    ],
)
def test_what_a_user_can_mend_is_one_line(case: str, code: int, said: str):
    process = start(case)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (code, said)


def test_a_fault_of_ours_is_logged_with_its_traceback():
    process = start("fault")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 70
    assert "a fault of ours" in err
