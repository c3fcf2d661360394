"""promtool: that of the image in docker-compose.yml where there is a Docker engine, else one on the path."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache

import pytest
import yaml

from tests.unit.deploy.files import PROMETHEUS, ROOT

TIMEOUT_S = 100


def promtool(*args: str) -> str:
    """Runs it in deploy/prometheus; what it says. Fails the test if it finds fault, skips it if there is none."""
    done = _run([*_command(), *args])
    assert done.returncode == 0, f"promtool {' '.join(args)}\n{done.stdout}"
    return done.stdout


@cache
def _command() -> Sequence[str]:
    reasons: list[str] = []
    for name, command in (("docker", _in_docker), ("promtool", lambda: ["promtool"])):
        if shutil.which(name) is None:
            reasons.append(f"there is no {name} here")
            continue
        done = _run([*command(), "--version"])
        if done.returncode == 0:
            return command()
        reasons.append(f"{name}: {done.stdout.strip().splitlines()[:1]}")
    reason = f"no promtool, so the rules of Prometheus are not tested: {'; '.join(reasons)}"
    if os.environ.get("KOUROU_REQUIRE_COMPOSE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def _in_docker() -> Sequence[str]:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    image: str = compose["services"]["prometheus"]["image"]
    mount = ["--volume", f"{PROMETHEUS}:/rules:ro", "--workdir", "/rules"]
    return ["docker", "run", "--rm", "--network=none", *mount, "--entrypoint=promtool", image]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=PROMETHEUS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S
    )
