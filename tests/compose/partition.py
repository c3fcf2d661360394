"""Cuts the network between a container and some addresses, by iptables in a container that shares its network."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.compose.container import Container
from tests.compose.engine import docker

IMAGE = "kourou-test-faults"
_BOTH_WAYS = (("INPUT", "--source"), ("OUTPUT", "--destination"))
_FAULTS = Path(__file__).with_name("faults")


def build() -> None:
    """The image with the tool."""
    docker("build", "--quiet", "--tag", IMAGE, str(_FAULTS), timeout_s=180)


@asynccontextmanager
async def cut_off(container: Container, addresses: Sequence[str], *, silently: bool = False) -> AsyncIterator[None]:
    """Nothing from these addresses reaches the container until the end of the block. What comes by TCP is refused: so
    whoever is at the other side learns of it when it next answers, and not only after minutes of silence. `silently`:
    what goes either way is lost, and nobody is told."""
    if silently:
        rules = [[*way, address, "-j", "DROP"] for address in addresses for way in _BOTH_WAYS]
    else:
        reset = ["-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"]
        rules = [["INPUT", "--source", address, *reset] for address in addresses]
    applied: list[list[str]] = []
    try:
        for rule in rules:
            await asyncio.to_thread(_iptables, container, "--append", *rule)
            applied.append(rule)
        yield
    finally:
        for rule in applied:
            await asyncio.to_thread(_iptables, container, "--delete", *rule)


def _iptables(container: Container, *args: str) -> None:
    inside = ["run", "--rm", "--cap-add", "NET_ADMIN", "--network", f"container:{container.id}"]
    docker(*inside, IMAGE, "--wait", "5", *args)
