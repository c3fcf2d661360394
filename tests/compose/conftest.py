"""One stack for all tests of this folder, which run one after the other and leave it whole."""

from collections.abc import AsyncIterator, Generator, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.fixtures import name
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compose import engine
from tests.compose.stack import Stack
from tests.compose.wholeness import is_whole

__all__ = ["name"]

_HERE = Path(__file__).parent
_SHOWN_LINES = 60
_TIMEOUT_S = 600
"""The first test's includes making the images."""
_running: list[Stack] = []
"""The one that lives now: its logs are shown with a failure."""


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.is_relative_to(_HERE):
        # One of xdist's workers has the stack.
        item.add_marker(pytest.mark.xdist_group("compose"))
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S))


@pytest.fixture(scope="session")
def _stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    engine.require()
    stack = Stack(tmp_path_factory.mktemp("stack"))
    _running.append(stack)
    try:
        stack.start()
        yield stack
        stack.check_logs()
    finally:
        stack.dispose()
        _running.remove(stack)


@pytest.fixture
async def stack(_stack: Stack) -> AsyncIterator[Stack]:
    """The cluster of docker-compose.yml, whole before and after, with no topic and no group."""
    async with Operator(_stack) as operator:
        await _wait_until_whole(_stack, operator)
        yield _stack
        _stack.restore()
        await _wait_until_whole(_stack, operator)
        await operator.delete_everything()


@pytest.fixture
async def operator(stack: Stack) -> AsyncIterator[Operator]:
    async with Operator(stack) as operator:
        yield operator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for stack in _running:
            for service, log in stack.logs(_SHOWN_LINES):
                report.sections.append((f"the end of what {service} wrote", log))
    return report


async def _wait_until_whole(stack: Stack, operator: Operator) -> None:
    await eventually(partial(is_whole, stack, operator), 60, what="a whole cluster")
