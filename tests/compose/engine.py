"""The Docker engine that the tests find, if there is one."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache

import pytest

from tests.cluster.process import clean_environment

REQUIRE_VARIABLE = "KOUROU_REQUIRE_COMPOSE"
COMMAND_TIMEOUT_S = 120.0


def require() -> None:
    """Skips the test where there is no engine, or fails it where the environment says that there must be one."""
    reason = _missing()
    if reason is None:
        return
    if os.environ.get(REQUIRE_VARIABLE) == "1":
        pytest.fail(f"{REQUIRE_VARIABLE}=1, but {reason}", pytrace=False)
    pytest.skip(f"docker-compose.yml is not tested: {reason}")


@cache
def _missing() -> str | None:
    for command in (["docker", "ps"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        except FileNotFoundError:
            return "there is no docker command"
        except subprocess.TimeoutExpired:
            return f"{_shown(command)} does not answer"
        if done.returncode != 0:
            return (done.stderr.strip() or f"{_shown(command)} fails").splitlines()[0]
    return None


def docker(
    *args: str,
    code: int | None = 0,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = COMMAND_TIMEOUT_S,
) -> subprocess.CompletedProcess[str]:
    """Runs a docker command to its end; `code` is the exit code it must have, None for any."""
    done = subprocess.run(
        ["docker", *args],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        env={**clean_environment(), **(env or {})},
        timeout=timeout_s,
    )
    text = subprocess.CompletedProcess(args, done.returncode, done.stdout.decode(), done.stderr.decode())
    if code is not None and done.returncode != code:
        raise AssertionError(f"docker {_shown(args)}: exit code {done.returncode}\n{text.stdout}{text.stderr}")
    return text


def _shown(args: Sequence[str]) -> str:
    return " ".join(arg if len(arg) < 200 else f"{arg[:200]}..." for arg in args)
