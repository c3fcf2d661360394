from collections.abc import Callable, Generator, Iterator
from itertools import count

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.fixtures import cluster, new_cluster, new_dev, operator, run, show_logs
from tests.compat.official import JAVA, PYTHON, Client, Host, Program
from tests.stubs.stub import BUILD_TIMEOUT_S

__all__ = ["cluster", "new_cluster", "new_dev", "operator"]

QUICK = {"transaction_check_after_s": 2, "transaction_check_interval_s": 1, "transaction_max_checks": 3}

NewHost = Callable[[Program], Host]


def pytest_itemcollected(item: pytest.Item) -> None:
    # The first test of a program builds it; where nothing is downloaded yet that takes its time.
    item.add_marker(pytest.mark.timeout(BUILD_TIMEOUT_S))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    show_logs(report)
    return report


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for what a test makes in the shared cluster: that of the client first, for it may be cut."""
    case, _, which = request.node.name.partition("[")
    return "".join(letter if letter.isalnum() else "-" for letter in f"{which[:-1]}-{case[5:]}")[:60].strip("-")


@pytest.fixture(scope="session")
def new_host(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewHost]:
    """Starts a program; none outlives the session."""
    home = tmp_path_factory.mktemp("official")
    started: list[Host] = []
    numbers = count(1)

    def start(program: Program) -> Host:
        program.require()
        # The Python client takes whom to believe from there.
        variables = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(cluster.ca)}
        started.append(Host(program, home / f"{program.name}-{next(numbers)}", variables))
        return started[-1]

    yield start
    for host in started:
        host.kill()


@pytest.fixture(scope="session")
def host_of(new_host: NewHost) -> NewHost:
    """The session's own of each program, made when it is first used."""
    hosts: dict[Program, Host] = {}

    def get(program: Program) -> Host:
        program.require()
        if program not in hosts:
            hosts[program] = new_host(program)
        return hosts[program]

    return get


@pytest.fixture(params=[PYTHON, JAVA], ids=lambda program: program.name)
def program(request: pytest.FixtureRequest) -> Program:
    return request.param


@pytest.fixture
def client(program: Program, host_of: NewHost, cluster: Cluster, name: str) -> Client:
    """Each of the official clients, in the shared cluster."""
    return Client(host_of(program), cluster, name)


@pytest.fixture(scope="session")
def quick_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """1 NameServer and 1 broker, which asks about open transactions soon. A test may kill it if it starts it again."""
    yield from run(Cluster(tmp_path_factory.mktemp("quick"), namesrvs=1, brokers=1, broker=QUICK))
