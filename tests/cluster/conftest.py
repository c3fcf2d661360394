from collections.abc import Generator

import pytest

from tests.cluster.fixtures import cluster, name, new_cluster, new_dev, operator, show_logs

__all__ = ["cluster", "name", "new_cluster", "new_dev", "operator"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    show_logs(report)
    return report
