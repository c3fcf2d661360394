"""A built stub: the program of one language under clients/."""

import fcntl
import functools
import os
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from kourou import ReceivedMessage
from tests.cluster.cluster import System
from tests.stubs.languages import Language, environment

REQUIRED = "KOUROU_REQUIRE_STUBS"
"""Names the languages whose tests must not be skipped, as in "go node"."""
BUILD_TIMEOUT_S = 900.0
"""With nothing downloaded, on a slow machine."""
RUN_TIMEOUT_S = 60.0
COUNT = 5


@dataclass(frozen=True)
class Line:
    """What a stub writes of a message that it sent or received."""

    id: str
    tag: str
    keys: tuple[str, ...]
    properties: tuple[str, ...]
    """name=value, sorted."""
    body: str

    @classmethod
    def parse(cls, text: str) -> Self:
        id_, tag, keys, properties, body = text.split("\t")
        return cls(id_, tag, _parts(keys), _parts(properties), body)

    @classmethod
    def of(cls, message: ReceivedMessage) -> Self:
        properties = sorted(f"{name}={value}" for name, value in message.properties.items())
        return cls(message.message_id, message.tag or "", message.keys, tuple(properties), message.body.decode())


class Stub:
    def __init__(self, language: Language) -> None:
        self.language = language

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.language.run, *args],
            cwd=self.language.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def run(self, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        with self.start(*args) as process:
            try:
                out, err = process.communicate(timeout=RUN_TIMEOUT_S)
            finally:
                process.kill()
        assert process.returncode == code, f"{self.language.name} {args}: {process.returncode}\n{out[-2000:]}{err}"
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def create(self, system: System, name: str) -> str:
        """A topic and a group of that name."""
        return self.run("create", "--admin", system.admin_address, "--topic", name, "--group", name).stdout

    def send(self, system: System, topic: str, count: int = COUNT) -> list[Line]:
        args = ("--endpoints", system.namesrv, "--topic", topic, "--count", str(count))
        return _lines(self.run("send", *args))

    def receive(self, system: System, topic: str, group: str, count: int = COUNT) -> list[Line]:
        return _lines(self.run(*receive_args(system, topic, group, count)))


def receive_args(system: System, topic: str, group: str, count: int) -> list[str]:
    return ["receive", "--endpoints", system.namesrv, "--topic", topic, "--group", group, "--count", str(count)]


def build(language: Language) -> Stub:
    """Skips the test when the language's tools are missing, unless it is required."""
    built = _build(language)
    if isinstance(built, Stub):
        return built
    if built.failed or language.name in os.environ.get(REQUIRED, "").split():
        pytest.fail(built.reason, pytrace=False)
    pytest.skip(built.reason)


@dataclass(frozen=True)
class _NotBuilt:
    reason: str
    failed: bool


@functools.cache
def _build(language: Language) -> Stub | _NotBuilt:
    if fault := language.missing():
        return _NotBuilt(f"clients/{language.name}: {fault}", failed=False)
    with _alone_in(language.folder):
        return _built(language)


@contextmanager
def _alone_in(folder: Path) -> Generator[None]:
    """Of all test processes."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _built(language: Language) -> Stub | _NotBuilt:
    for command in language.build:
        done = subprocess.run(
            command,
            cwd=language.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=BUILD_TIMEOUT_S,
        )
        if done.returncode != 0:
            return _NotBuilt(f"clients/{language.name}: {' '.join(command)} failed:\n{done.stdout}", failed=True)
    return Stub(language)


def _lines(done: subprocess.CompletedProcess[str]) -> list[Line]:
    return [Line.parse(line) for line in done.stdout.split("\n") if line]


def _parts(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def by_id(lines: Sequence[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: line.id)
