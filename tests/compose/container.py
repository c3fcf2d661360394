"""One container of the stack."""

import json
from typing import Any

from tests.compose.engine import docker


class Container:
    """Its methods block: call them in a thread while clients run in the loop."""

    def __init__(self, service: str, id_: str) -> None:
        self.service = service
        self.id = id_
        """It stays the same when the container is stopped and started again."""

    def inspect(self) -> dict[str, Any]:
        """All that the engine knows of it, now."""
        return json.loads(docker("inspect", self.id).stdout)[0]

    @property
    def status(self) -> str:
        """created, running, paused, restarting or exited."""
        return self.inspect()["State"]["Status"]

    @property
    def health(self) -> str:
        """starting, healthy or unhealthy."""
        return self.inspect()["State"]["Health"]["Status"]

    def address(self) -> str:
        """In the stack's network; another one after each start."""
        [network] = self.inspect()["NetworkSettings"]["Networks"].values()
        return network["IPAddress"]

    def exec(self, *command: str, code: int | None = 0, stdin: bytes | None = None) -> str:
        """What the command writes to stdout."""
        flags = [] if stdin is None else ["--interactive"]
        return docker("exec", *flags, self.id, *command, code=code, stdin=stdin).stdout

    def kill(self) -> None:
        """kill -9, by the operator: the engine does not start it again."""
        docker("kill", self.id)

    def crash(self) -> None:
        """kill -9 of all its processes from within: the engine starts it again, by its restart policy."""
        docker("exec", self.id, "sh", "-c", "kill -9 -1", code=None)

    def stop(self) -> None:
        docker("stop", self.id)

    def start(self) -> None:
        docker("start", self.id)

    def pause(self) -> None:
        docker("pause", self.id)

    def unpause(self) -> None:
        docker("unpause", self.id)

    def log(self, tail: int | str = "all") -> str:
        done = docker("logs", "--tail", str(tail), self.id, code=None)
        return done.stdout + done.stderr
