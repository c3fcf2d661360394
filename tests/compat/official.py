"""The programs under tests/compat/java and go: official clients, unchanged, built by their own tools once a session."""

import functools
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.stubs.languages import Tool, environment
from tests.stubs.stub import BUILD_TIMEOUT_S, REQUIRED

RUN_TIMEOUT_S = 90.0


@dataclass(frozen=True, eq=False)
class Program:
    name: str
    """Of its folder, and in KOUROU_REQUIRE_STUBS."""
    tools: Sequence[Tool]
    build: Sequence[str]
    """For its folder; cheap when all is built."""
    command: Sequence[str]
    """{home} is a folder for what the client writes there, its log above all."""

    @property
    def folder(self) -> Path:
        return Path(__file__).parent / self.name

    @functools.cache  # noqa: B019  (there are two, as long as the process lives)
    def _fault(self) -> tuple[str, bool] | None:
        """Why it cannot be run, and whether that fails a test or skips it."""
        if missing := next(filter(None, (tool.fault() for tool in self.tools)), None):
            return f"tests/compat/{self.name}: {missing}", self.name in os.environ.get(REQUIRED, "").split()
        done = subprocess.run(
            self.build,
            cwd=self.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=BUILD_TIMEOUT_S,
        )
        if done.returncode != 0:
            return f"tests/compat/{self.name}: {' '.join(self.build)} failed:\n{done.stdout}", True
        return None

    def is_there(self) -> bool:
        """Builds it; False where its tools are missing and not required."""
        fault = self._fault()
        if fault is not None and fault[1]:
            pytest.fail(fault[0], pytrace=False)
        return fault is None

    def require(self) -> None:
        """Builds it. Skips the test when its tools are missing and not required."""
        if not self.is_there():
            pytest.skip(f"the tools for tests/compat/{self.name} are missing")

    def run(self, home: Path, command: str, endpoints: str, **arguments: Any) -> list[dict[str, Any]]:
        """Runs a command to its end: the results that it wrote. `endpoints` are separated by commas."""
        process = self.start(home, command, endpoints, **arguments)
        try:
            out, err = process.communicate(timeout=RUN_TIMEOUT_S)
        finally:
            process.kill()
        log = "".join(path.read_text(errors="replace")[-3000:] for path in home.rglob("*.log"))
        assert process.returncode == 0, f"{self.name} {command}: {out[-3000:]}{err[-3000:]}\n{log}"
        return [json.loads(line) for line in out.splitlines()]

    def start(self, home: Path, command: str, endpoints: str, **arguments: Any) -> subprocess.Popen[str]:
        """The same, for who reads the results as they come and ends the process."""
        process = subprocess.Popen(
            [*(part.format(home=home) for part in self.command), command, endpoints.replace(",", ";")],
            cwd=self.folder,
            env=environment() | {"HOME": str(home), "rocketmq.client.logRoot": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(arguments))
        process.stdin.close()
        process.stdin = None  # communicate would flush it
        return process


JAVA = Program(
    "java",
    tools=[Tool("java", "-version", (17,)), Tool("javac", "-version", (17,)), Tool("mvn", "-version", (3, 8))],
    build=["mvn", "--batch-mode", "--quiet", "package"],
    command=["java", "-XX:TieredStopAtLevel=1", "-Duser.home={home}", "-jar", "target/compat.jar"],
)
GO = Program(
    "go",
    tools=[Tool("go", "version", (1, 26))],
    build=["go", "build", "-buildvcs=false", "-o", "compat"],
    command=["./compat"],
)
