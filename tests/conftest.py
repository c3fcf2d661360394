"""What holds for all tests."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Their tests start real processes and measure real time: on few cores they run one after the other, on one of
# xdist's workers, while the others do the rest.
WITH_PROCESSES = [TESTS / "cluster", TESTS / "compat", TESTS / "stubs"]


def pytest_itemcollected(item: pytest.Item) -> None:
    if any(item.path.is_relative_to(folder) for folder in WITH_PROCESSES):
        item.add_marker(pytest.mark.xdist_group("processes"))
