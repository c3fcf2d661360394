from collections.abc import Generator, Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.fixtures import name, operator, run, show_logs
from tests.stubs.languages import LANGUAGES, Language
from tests.stubs.stub import Stub, build

__all__ = ["name", "operator"]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """As for the tests of the cluster, with room for messages of any size."""
    yield from run(Cluster(tmp_path_factory.mktemp("cluster"), broker={"segment_bytes": 16 << 20}))


@pytest.fixture(scope="session", params=LANGUAGES, ids=lambda language: language.name)
def language(request: pytest.FixtureRequest) -> Language:
    return request.param


@pytest.fixture(scope="session")
def stub(language: Language) -> Stub:
    """Of one language after the other; skipped where its tools are missing."""
    return build(language)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    show_logs(report)
    return report
