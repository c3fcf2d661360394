"""Official clients, unchanged, in programs that do what tests tell them: those under tests/compat/python, java and go.

A start of such a program takes seconds, so one of each lives as long as the session and runs the commands of many
tests, each with clients of its own. Only one that is to be killed is started anew.
"""

import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.cluster.cluster import System
from tests.cluster.waiting import eventually
from tests.stubs.languages import Tool, environment
from tests.stubs.stub import BUILD_TIMEOUT_S, REQUIRED

PATIENCE_S = 45.0
"""For what has to come, on a busy machine: a client asks for routes and assignments at intervals of seconds."""
POLLS = 8
"""A simple consumer asks one broker after the other, a second each: after so many empty answers nothing comes."""
ROOT = Path(__file__).parents[2]

Told = dict[str, Any]
"""A result of a command."""


@dataclass(frozen=True, eq=False)
class Program:
    name: str
    """Of its folder, and in KOUROU_REQUIRE_STUBS."""
    tls: bool
    """Whether its client speaks TLS unless it is told otherwise."""
    command: Sequence[str]
    """{home} is a folder for what the client writes there, its log above all."""
    tools: Sequence[Tool] = ()
    build: Sequence[str] = ()
    """For its folder; cheap when all is built."""

    @property
    def folder(self) -> Path:
        return Path(__file__).parent / self.name

    @functools.cache  # noqa: B019  (there are three, as long as the process lives)
    def _fault(self) -> tuple[str, bool] | None:
        """Why it cannot be run, and whether that fails a test or skips it."""
        if missing := next(filter(None, (tool.fault() for tool in self.tools)), None):
            return f"tests/compat/{self.name}: {missing}", self.name in os.environ.get(REQUIRED, "").split()
        if not self.build:
            return None
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


PYTHON = Program("python", tls=False, command=[sys.executable, "-m", "tests.compat.python.main"])
JAVA = Program(
    "java",
    tls=True,
    command=["java", "-XX:TieredStopAtLevel=1", "-Duser.home={home}", "-jar", "tests/compat/java/target/compat.jar"],
    tools=[Tool("java", "-version", (17,)), Tool("javac", "-version", (17,)), Tool("mvn", "-version", (3, 8))],
    build=["mvn", "--batch-mode", "--quiet", "package"],
)
GO = Program(
    "go",
    tls=True,
    command=["tests/compat/go/compat"],
    tools=[Tool("go", "version", (1, 26))],
    build=["go", "build", "-buildvcs=false", "-o", "compat"],
)


class Run:
    """A command that was begun."""

    def __init__(self, host: "Host", number: int) -> None:
        self._host = host
        self._number = number
        self.results: list[Told] = []
        self.ended = False
        self.error = ""

    def tell(self, **order: Any) -> None:
        """It obeys its orders one after the other."""
        self._host.write({"run": self._number, "order": order})

    async def until(self, count: int, timeout_s: float = PATIENCE_S, *, of: str = "") -> list[Told]:
        """The first results, when there are so many; of that kind only, if one is given."""

        def there() -> bool:
            assert not self.error, self.error
            return len(self.of(of) if of else self.results) >= count

        try:
            await eventually(there, timeout_s, what=f"{count} results {of}")
        except AssertionError as problem:
            problem.add_note(f"{self._host.program.name} told {self.results[-20:]}\n{self._host.end_of_log}")
            raise
        return (self.of(of) if of else self.results)[:count]

    def of(self, kind: str) -> list[Told]:
        """The results that tell that."""
        return [result for result in self.results if kind in result]

    @property
    def heard(self) -> list[Told]:
        """The messages that were received."""
        return self.of("attempt")

    async def until_heard(self, count: int, timeout_s: float = PATIENCE_S) -> list[Told]:
        return await self.until(count, timeout_s, of="attempt")

    async def answer(self, kind: str, **order: Any) -> Told:
        """The result of that kind, or the refusal, which this order brings."""
        before = len(self.of(kind)) + len(self.of("refused"))
        self.tell(**order)

        def told() -> list[Told]:
            return [result for result in self.results if kind in result or "refused" in result]

        await eventually(lambda: len(told()) > before or self.ended, PATIENCE_S, what=f"the answer to {order}")
        assert len(told()) > before, f"{order}: {self.error or 'it has ended'}"
        return told()[before]

    async def done(self, timeout_s: float = PATIENCE_S) -> list[Told]:
        """All results, when it has ended by itself."""
        await eventually(lambda: self.ended, timeout_s, what="the end of a command")
        assert not self.error, f"{self.error}\n{self._host.end_of_log}"
        return self.results

    async def stop(self) -> list[Told]:
        """All results, when it has obeyed."""
        self.tell(stop=True)
        return await self.done()


class Host:
    """A program that runs, until it is killed."""

    def __init__(self, program: Program, home: Path, variables: Mapping[str, str] | None = None) -> None:
        self.program = program
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self._runs: dict[int, Run] = {}
        self._numbers = count(1)
        with (home / "stderr.log").open("ab") as errors:
            self._process = subprocess.Popen(
                [part.format(home=home) for part in program.command],
                cwd=ROOT,
                env=environment() | {"HOME": str(home), **(variables or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
            )
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def begin(self, command: str, endpoints: str, arguments: Mapping[str, Any]) -> Run:
        number = next(self._numbers)
        run = self._runs[number] = Run(self, number)
        self.write(
            {"run": number, "command": command, "endpoints": endpoints.replace(",", ";"), "arguments": arguments}
        )
        return run

    def write(self, said: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # its runs have ended with an error
            self._process.stdin.write(json.dumps(said) + "\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        """kill -9. What its runs had told before is complete on return."""
        self._process.kill()
        self._process.wait(10)

    def log(self) -> str:
        """What it and its client wrote."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.home.rglob("*.log")))

    @property
    def end_of_log(self) -> str:
        return self.log()[-4000:]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith("\n"):
                break  # it was killed
            said = json.loads(line)
            run = self._runs[said["run"]]
            if "result" in said:
                run.results.append(said["result"])
            else:
                run.error = said.get("error", "")
                run.ended = True
        for run in self._runs.values():
            if not run.ended:
                run.error = f"{self.program.name} has ended"
                run.ended = True


class Client:
    """One official client: its commands, about a topic and a group unless they name others."""

    def __init__(self, host: Host, system: System, name: str) -> None:
        self.host = host
        self.program = host.program
        self._system = system
        self._name = name

    def begin(self, command: str, *, tls: bool | None = None, endpoints: str = "", **arguments: Any) -> Run:
        """`tls`: not as the client does by itself. `endpoints`: not the system's access points for that."""
        if tls is not None:
            arguments["tls"] = tls
        over_tls = self.program.tls if tls is None else tls
        endpoints = endpoints or (self._system.tls_namesrv if over_tls else self._system.namesrv)
        if over_tls and self.program is PYTHON:
            # It takes all of several addresses for the one name that the certificate has to be for.
            endpoints = endpoints.partition(",")[0]
        return self.host.begin(command, endpoints, {"topic": self._name, "group": self._name, **arguments})

    @asynccontextmanager
    async def running(self, command: str, **arguments: Any) -> AsyncIterator[Run]:
        """From its start to the end of the block."""
        run = self.begin(command, **arguments)
        try:
            yield run
        finally:
            run.tell(stop=True)
        await run.done()

    @asynccontextmanager
    async def listening(self, **arguments: Any) -> AsyncIterator[Run]:
        async with self.running("listen", **arguments) as listener:
            await listener.until(1, of="started")
            yield listener

    @asynccontextmanager
    async def producing(self, **arguments: Any) -> AsyncIterator[Run]:
        async with self.running("produce", stays=True, **arguments) as producer:
            await producer.until(1, of="started")
            yield producer

    async def send(self, messages: Sequence[Told], **arguments: Any) -> list[Told]:
        """What it tells of each of them, by a producer of its own."""
        told = await self.begin("produce", messages=messages, **arguments).done()
        sent = [result for result in told if "id" in result]
        assert len(sent) == len(messages), f"{told}\n{self.host.end_of_log}"
        return sent

    async def refusal(self, message: Told, **arguments: Any) -> str:
        """Why it could not be sent."""
        told = await self.begin("produce", messages=[message], **arguments).done()
        assert [list(result) for result in told] == [["refused"]], told
        return told[0]["refused"]

    async def receive(
        self, count: int, *, polls: int = POLLS, asynchronously: bool = False, **arguments: Any
    ) -> list[Told]:
        """Until so many messages came, or for that many polls in a row none: by a simple consumer of its own."""
        how = {"asynchronously": True} if asynchronously else {}
        async with self.running("simple", **arguments) as consumer:
            empty = 0
            while len(consumer.heard) < count and empty < polls:
                answer = await consumer.answer("received", receive=32, invisible_s=30, ack=True, **how)
                assert "received" in answer, answer
                empty = empty + 1 if answer["received"] == "0" else 0
        return consumer.heard


def messages(*bodies: str, **fields: Any) -> list[Told]:
    """To be sent: with a tag, keys, properties, a group, deliver_at_ms, a priority or a lite_topic."""
    return [{"body": body.encode().hex(), **fields} for body in bodies]


def bodies(results: Sequence[Told]) -> list[str]:
    return [bytes.fromhex(result["body"]).decode() for result in results]
