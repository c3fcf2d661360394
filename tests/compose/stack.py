"""The project's own docker-compose.yml, up for real."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.cluster.cluster import System
from tests.cluster.process import Process
from tests.compose.container import Container
from tests.compose.engine import COMMAND_TIMEOUT_S, docker

ROOT = Path(__file__).parents[2]
PROJECT = "kourou-test"
# A build without any cache loads all dependencies.
UP_TIMEOUT_S = 420.0
NAMESRVS = ("namesrv-a", "namesrv-b")
BROKERS = ("broker-a", "broker-b")
OTHERS = ("admin", "prometheus", "grafana")
SERVICES = (*NAMESRVS, *BROKERS, *OTHERS)
"""What `docker compose up` starts, each once."""


class Stack(System):
    """As a user on the host has it in front of him. Its methods block."""

    def __init__(self, folder: Path) -> None:
        plain, safe = "127.0.0.1:8081,127.0.0.1:8082", "127.0.0.1:8443,127.0.0.1:8444"
        super().__init__(folder, plain, safe, folder / "ca.pem", "127.0.0.1:9080")

    @property
    def nodes(self) -> Sequence[Process]:
        return []

    @property
    def broker_addresses(self) -> Sequence[str]:
        return ["127.0.0.1:10911", "127.0.0.1:10912"]

    def start(self) -> None:
        self.dispose()  # what an earlier run that was killed left
        self.up("--build")
        self.compose("cp", "admin:/tls/ca.pem", str(self.ca))

    def dispose(self) -> None:
        """Nothing of it is left but its images."""
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "20", code=None)

    def up(self, *args: str) -> None:
        """Returns when everything is healthy. `args` are more flags, and services."""
        self.compose("up", "--detach", "--wait", "--quiet-pull", *args, timeout_s=UP_TIMEOUT_S)

    def compose(
        self, *args: str, code: int | None = 0, stdin: bytes | None = None, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> str:
        """Runs `docker compose` on this stack; what it writes to stdout."""
        return docker(*self._command(), *args, code=code, stdin=stdin, timeout_s=timeout_s).stdout

    def containers(self) -> list[Container]:
        """Those of all services, running or not."""
        of_services = (f"label=com.docker.compose.project={PROJECT}", "label=com.docker.compose.oneoff=False")
        filters = [part for label in of_services for part in ("--filter", label)]
        shown = '{{.Label "com.docker.compose.service"}} {{.ID}}'
        lines = docker("ps", "--all", *filters, "--format", shown).stdout.splitlines()
        return [Container(*line.split()) for line in sorted(lines)]

    def container(self, service: str) -> Container:
        """The only one of a service."""
        [container] = [each for each in self.containers() if each.service == service]
        return container

    def scale(self, service: str, count: int) -> None:
        """Returns when they are healthy; leaves all others as they are."""
        self.up("--no-recreate", "--scale", f"{service}={count}", service)

    def restore(self) -> None:
        """Brings back what a test paused, stopped or added, without waiting for it."""
        for container in self.containers():
            if container.service not in SERVICES:
                docker("rm", "--force", "--volumes", container.id)
            elif container.status == "paused":
                container.unpause()
            elif container.status != "running":
                container.start()

    def kourou_inside(self, *args: str) -> str:
        """The `kourou` command in the admin service's container, as the README has it; what it writes to stdout."""
        return self.compose("exec", "-T", "admin", "kourou", *args)

    def start_inside(self, program: Path, *args: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Starts a Python program, which may use the `kourou` library, in a container of its own in the network.

        It finds the cluster by its environment, as any container does that has the same two variables. It gets its
        own text before it starts; what is written to its stdin then is its input. `env` is added to its environment.
        """
        added = [part for name, value in (env or {}).items() for part in ("--env", f"{name}={value}")]
        run = ["run", "--rm", "--no-deps", "-T", *added, "--entrypoint", "python", "admin", "-c", _LOADER, *args]
        process = subprocess.Popen(
            ["docker", *self._command(), *run],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdin is not None
        text = program.read_text()
        process.stdin.write(f"{len(text)}\n{text}")
        process.stdin.flush()
        return process

    def run_inside(
        self, program: Path, *args: str, env: Mapping[str, str] | None = None, timeout_s: float = 60.0
    ) -> str:
        """Runs a program as `start_inside` does, to its end; what it writes."""
        process = self.start_inside(program, *args, env=env)
        output, _ = process.communicate(timeout=timeout_s)
        assert process.returncode == 0, f"{program.name} {args}: exit code {process.returncode}\n{output}"
        return output

    def run_on_host(
        self, program: Path, *args: str, env: Mapping[str, str] | None = None, timeout_s: float = 60.0
    ) -> str:
        """Runs the same program here; what it writes."""
        done = subprocess.run(
            [sys.executable, program, *args],
            capture_output=True,
            text=True,
            env={**self.environment(), **(env or {})},
            timeout=timeout_s,
        )
        assert done.returncode == 0, f"{program.name} {args}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def logs(self, tail: int) -> Iterator[tuple[str, str]]:
        """The end of what each container wrote, by its service."""
        for container in self.containers():
            yield container.service, container.log(tail)

    def replace(self, *services: str) -> None:
        """Their containers by new ones, of the same image. Returns when they are healthy."""
        self.check_logs()
        self.up("--no-deps", "--force-recreate", *services)

    def check_logs(self) -> None:
        """Also before containers are removed: what they logged goes with them."""
        faults = list(self.faults())
        assert not faults, "\n".join(fault[:2000] for fault in faults[:5])

    def faults(self) -> Iterator[str]:
        """Lines of our services that tell of one, or are not what a collector of logs reads."""
        for container in self.containers():
            if container.service not in ("prometheus", "grafana"):
                for line in container.log().splitlines():
                    if _tells_of_a_fault(line) or not _is_structured(line):
                        yield f"{container.service}: {line}"

    def _command(self) -> list[str]:
        files = [ROOT / "docker-compose.yml", Path(__file__).with_name("fast.yml")]
        quiet = ["compose", "--progress", "quiet", "--project-name", PROJECT]
        return [*quiet, *(part for file in files for part in ("--file", str(file)))]


_LOADER = "import sys; exec(compile(sys.stdin.read(int(sys.stdin.readline())), 'program', 'exec'))"


def _tells_of_a_fault(line: str) -> bool:
    return "Traceback" in line or '"exception"' in line or "stopped by a fault" in line


def _is_structured(line: str) -> bool:
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return isinstance(event, dict) and {"event", "level", "timestamp"} <= event.keys()
