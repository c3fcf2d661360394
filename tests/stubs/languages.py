"""The languages under clients/: what each needs, how it is built and how it is run."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from tests.cluster.process import BIN, clean_environment

CLIENTS = Path(__file__).parents[2] / "clients"


@dataclass(frozen=True)
class Tool:
    command: str
    ask_version: str
    at_least: tuple[int, ...]

    def fault(self) -> str | None:
        """Why it cannot be used, None if it can."""
        wanted = ".".join(map(str, self.at_least))
        path = shutil.which(self.command, path=environment()["PATH"])
        if path is None:
            return f"{self.command} is not installed; {wanted} or newer is needed"
        asked = subprocess.run([path, self.ask_version], capture_output=True, text=True, env=environment(), timeout=60)
        found = re.search(r"\d+(\.\d+)+|\b\d+\b", asked.stdout + asked.stderr)
        if found is None:
            return f"{self.command} {self.ask_version} says no version: {asked.stdout}{asked.stderr}"
        version = tuple(map(int, found[0].split(".")))
        return None if version >= self.at_least else f"{self.command} is {found[0]}; {wanted} or newer is needed"


@dataclass(frozen=True, eq=False)
class Language:
    name: str
    """Of its folder, and in KOUROU_REQUIRE_STUBS."""
    title: str
    """What its program calls itself."""
    code: v2.Language
    tools: Sequence[Tool]
    build: Sequence[Sequence[str]]
    """Commands for its folder; cheap when all is built."""
    run: Sequence[str]

    @property
    def folder(self) -> Path:
        return CLIENTS / self.name

    def missing(self) -> str | None:
        """The first tool that cannot be used, and why."""
        return next(filter(None, (tool.fault() for tool in self.tools)), None)


GO = Language(
    "go",
    "Go",
    v2.GOLANG,
    tools=[Tool("go", "version", (1, 26))],
    build=[["go", "generate"], ["go", "vet"], ["go", "build", "-buildvcs=false", "-o", "hello"]],
    run=["./hello"],
)
LANGUAGES = (
    GO,
    Language(
        "java",
        "Java",
        v2.JAVA,
        tools=[Tool("java", "-version", (17,)), Tool("javac", "-version", (17,)), Tool("mvn", "-version", (3, 8))],
        build=[["mvn", "--batch-mode", "--quiet", "package"]],
        run=["java", "-XX:TieredStopAtLevel=1", "-jar", "target/hello.jar"],
    ),
    Language(
        "node",
        "Node",
        v2.NODE_JS,
        tools=[Tool("node", "--version", (18, 3)), Tool("npm", "--version", (8,))],
        build=[["npm", "ci", "--no-audit", "--no-fund"]],
        run=["node", "main.js"],
    ),
    Language(
        "rust",
        "Rust",
        v2.RUST,
        tools=[Tool("cargo", "--version", (1, 88))],
        build=[["cargo", "build", "--quiet"]],
        run=["target/debug/hello"],
    ),
)


def environment() -> dict[str, str]:
    """With what is in .venv, above all buf."""
    clean = clean_environment()
    return clean | {"PATH": f"{BIN}{os.pathsep}{clean['PATH']}"}
