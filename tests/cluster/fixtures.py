"""Fixtures of everything that runs against real processes."""

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.cluster.cluster import Cluster, Dev, System
from tests.cluster.operator_client import Operator
from tests.cluster.process import Process

_SHOWN_LINES = 40
_SHOWN_CHARS = 400

S = TypeVar("S", bound=System)
_systems: list[System] = []
"""Those that live now: their logs are shown with a failure."""


def run(system: S) -> Generator[S]:
    """Starts it, and ends it with all its processes. Fails when one of them wrote a traceback."""
    _systems.append(system)
    try:
        system.start()
        yield system
        faults = list(system.faults())
        assert not faults, "\n".join(fault[:2000] for fault in faults[:5])
    finally:
        system.dispose()
        _systems.remove(system)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """2 NameServers, 2 brokers and the admin service, for tests that leave them as they were."""
    yield from run(Cluster(tmp_path_factory.mktemp("cluster")))


@pytest.fixture
def new_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes and starts a cluster for one test; the arguments are those of Cluster."""
    running: list[Generator[Cluster]] = []

    def make(**options: Any) -> Cluster:
        running.append(run(Cluster(tmp_path / f"cluster-{len(running)}", **options)))
        return next(running[-1])

    yield make
    _end(running)


@pytest.fixture
def new_dev(tmp_path: Path) -> Iterator[Callable[..., Dev]]:
    """Makes and starts `kourou dev` for one test; the arguments are its settings."""
    running: list[Generator[Dev]] = []

    def make(**settings: object) -> Dev:
        running.append(run(Dev(tmp_path / f"dev-{len(running)}", **settings)))
        return next(running[-1])

    yield make
    _end(running)


def _end(running: list[Generator[Any]]) -> None:
    for generator in reversed(running):
        next(generator, None)


@pytest.fixture
async def operator(cluster: Cluster) -> AsyncIterator[Operator]:
    """Of the shared cluster."""
    async with Operator(cluster) as operator:
        yield operator


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for what a test makes in the shared cluster, unlike that of any other test."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:60].strip("-")


def show_logs(report: pytest.TestReport) -> None:
    if report.failed:
        for system in _systems:
            for node in system.nodes:
                report.sections.append((f"the end of what {node.name} wrote", _end_of_output(node)))


def _end_of_output(node: Process) -> str:
    lines = node.output_path.read_text(errors="replace").splitlines() if node.output_path.exists() else []
    return "\n".join(line[:_SHOWN_CHARS] for line in lines[-_SHOWN_LINES:])
