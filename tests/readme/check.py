"""Runs the README's commands as they are written, on a clean clone: `make check-readme`.

It needs the ports that the README names, and leaves out what needs Docker where there is none, or fails there if
KOUROU_REQUIRE_COMPOSE is 1. `make test` alone is not run: it is what one runs beside this.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 600.0
COMMAND_TIMEOUT_S = 300.0
_AFTER_CTRL_C = (0, 130, -signal.SIGINT)
SERVICES = ("NameServer listens", "broker serves", "broker serves", "admin service listens")


class Block(NamedTuple):
    """An indented block of the README."""

    section: str
    """The heading it stands under, without #."""
    text: str

    @property
    def is_python(self) -> bool:
        return self.text.startswith(("from ", "import "))

    @property
    def is_drawing(self) -> bool:
        return "─" in self.text

    @property
    def in_container(self) -> bool:
        return self.text.startswith("docker compose ")

    @property
    def commands(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.strip()]


def blocks(readme: str) -> Iterator[Block]:
    section, lines = "", list[str]()
    for line in [*readme.splitlines(), "the end"]:
        if line.startswith("    ") or (lines and not line.strip()):
            lines.append(line[4:])
            continue
        if lines:
            yield Block(section, "\n".join(lines).strip("\n"))
            lines = []
        if line.startswith("#"):
            section = line.lstrip("# ")


class Done(NamedTuple):
    command: str
    output: str


class Readme:
    def __init__(self, clone: Path) -> None:
        self.clone = clone
        self._blocks = list(blocks((clone / "README.md").read_text()))
        self.done = set[Block]()

    def find(self, section: str, fits: Callable[[Block], bool] = lambda _: True) -> list[Block]:
        """The blocks of sections whose heading contains that, drawings left out. There must be one."""
        found = [block for block in self._blocks if section in block.section and not block.is_drawing and fits(block)]
        if not found:
            raise SystemExit(f"the README has no commands under {section!r} any more: mend {Path(__file__).name}")
        return found

    def forgotten(self) -> list[Block]:
        return [block for block in self._blocks if not block.is_drawing and block not in self.done]

    def run(self, found: Sequence[Block]) -> list[Done]:
        """Runs blocks to their ends."""
        done: list[Done] = []
        for block in found:
            self.done.add(block)
            steps = [f".venv/bin/python -c {shlex.quote(block.text)}"] if block.is_python else block.commands
            for step in steps:
                done.append(Done(step, self.step(step)))
        return done

    def step(self, command: str) -> str:
        say(command)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.clone,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        if done.returncode != 0:
            raise SystemExit(f"{command}\nended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    @contextmanager
    def running(self, command: str, until: str, *, endings: Sequence[int] = _AFTER_CTRL_C) -> Iterator[None]:
        """Runs a command beside others, from the moment when it has written `until`; Ctrl-C ends it.

        `endings` are the exit codes it may end with; empty: any.
        """
        say(f"{command}  (goes on)")
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.clone,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

            def written() -> str:
                output.seek(0)
                return output.read()

            try:
                wait_for(lambda: until in written() or process.poll() is not None, command)
                if process.poll() is not None:
                    raise SystemExit(f"{command}\nended with {process.returncode}:\n{written()}")
                yield
            finally:
                os.killpg(process.pid, signal.SIGINT)
                code = process.wait(60)
            if endings and code not in endings:
                raise SystemExit(f"{command}\nended with {code} after Ctrl-C:\n{written()}")


def say(text: str) -> None:
    first, *rest = text.splitlines()
    print(f"$ {first}{' …' if rest else ''}", flush=True)


def wait_for(probe: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not probe():
        if time.monotonic() > deadline_s:
            raise SystemExit(f"{what}: not within {START_TIMEOUT_S:.0f} s")
        time.sleep(0.2)


def check_one_process(readme: Readme) -> None:
    [run] = readme.find("Two commands", lambda block: block.text == "make run")
    readme.done.add(run)
    with readme.running(run.text, "Kourou is up"):
        check_clients(readme)


def check_clients(readme: Readme) -> None:
    """Those on the host, with whichever cluster is up."""
    for section in ("The `kourou` command", "The Python library", "The official RocketMQ client"):
        done = readme.run(readme.find(section, lambda block: not block.in_container))
        flights = "".join(each.output for each in done if " flights " in each.command)
        digests = re.findall(r"^digest (\S+)", flights, re.MULTILINE)
        if len(set(digests)) > 1:
            raise SystemExit(f"what came out is not what went in: {digests}")


def check_services(readme: Readme) -> None:
    [block] = readme.find("What it is made of")
    readme.done.add(block)
    with ExitStack() as stack:
        for command, until in zip(block.commands, SERVICES, strict=True):
            stack.enter_context(readme.running(command, until))
        readme.step(".venv/bin/kourou topic create services")
        readme.step('.venv/bin/kourou send services "through four processes"')


def check_compose(readme: Readme) -> None:
    [up] = readme.find("Two commands", lambda block: block.in_container)
    readme.done.add(up)
    # As on a host that never had it: else an image of earlier code would do.
    subprocess.run(["docker", "image", "rm", "--force", "kourou"], check=True, capture_output=True)
    # The `down` at the end takes the containers from under it, which it tells in one way or another.
    with readme.running(up.text, "broker serves", endings=()):
        wait_for(lambda: is_healthy(readme.clone), "a healthy cluster")
        check_clients(readme)
        # The commands in the containers make these anew.
        readme.step(".venv/bin/kourou topic delete hello --yes")
        readme.step(".venv/bin/kourou group delete readers --yes")
        readme.run(readme.find("The `kourou` command", lambda block: block.in_container))
        readme.run(readme.find("The Compose cluster"))


def is_healthy(clone: Path) -> bool:
    listed = ["docker", "compose", "ps", "--format", "{{.Health}}"]
    states = subprocess.run(listed, cwd=clone, capture_output=True, text=True).stdout.split()
    return bool(states) and set(states) == {"healthy"}


def has_docker() -> bool:
    tried = [["docker", "info"], ["docker", "compose", "version"]]
    return shutil.which("docker") is not None and not any(
        subprocess.run(command, capture_output=True).returncode for command in tried
    )


def main() -> None:
    docker = has_docker()
    if not docker and os.environ.get("KOUROU_REQUIRE_COMPOSE") == "1":
        raise SystemExit("KOUROU_REQUIRE_COMPOSE=1, but there is no Docker engine with compose")
    with tempfile.TemporaryDirectory(prefix="kourou-readme-") as folder:
        clone = Path(folder) / "kourou"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        readme = Readme(clone)
        # One that runs beside a cluster of the user's is none of this one's business.
        os.environ["COMPOSE_PROJECT_NAME"] = "kourou-readme"
        for name in [name for name in os.environ if name.startswith("KOUROU_")]:
            del os.environ[name]
        check_one_process(readme)
        check_services(readme)
        if docker:
            try:
                check_compose(readme)
            finally:
                subprocess.run(["docker", "compose", "--profile", "*", "down", "--volumes"], cwd=clone, check=False)
        else:
            print("no Docker engine: the commands that need one are left out")
    left_out = [block for block in readme.forgotten() if block.text != "make test"]
    if left_out and docker:
        raise SystemExit(f"nobody runs these commands of the README: {[block.text for block in left_out]}")
    print(f"{len(readme.done)} blocks of the README do what it says")


if __name__ == "__main__":
    sys.exit(main())
