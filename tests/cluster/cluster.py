"""Clusters of real processes."""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.cluster.ports import free_port
from tests.cluster.process import BIN, Process, clean_environment

Settings = Mapping[str, object]
COMMAND_TIMEOUT_S = 60.0
METRICS: Settings = {"metrics_listen": "127.0.0.1:0"}
"""Where they are is in the line that says that a service is ready."""
TLS_FOLDER = "tls"
"""Where the processes of a system have their common CA."""


class Node(Process):
    """A service with its address for clients, "host:port"."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, address: str, ready: str, settings: Settings
    ) -> None:
        self._command = [str(BIN / "kourou"), *command]
        self._settings = dict(settings)
        super().__init__(name, self._command_line(), folder, ready=ready)
        self.address = address

    def set(self, name: str, value: object) -> None:
        """From the next start on."""
        self._settings[name] = value
        self.args = self._command_line()

    def _command_line(self) -> list[str]:
        flags = [(f"--{name.replace('_', '-')}", str(value)) for name, value in self._settings.items()]
        return [*self._command, *(part for flag in flags for part in flag)]


class NamesrvNode(Node):
    def __init__(self, name: str, folder: Path, settings: Settings) -> None:
        address, self.tls_address, self.for_brokers = free_address(), free_address(), free_address()
        own = {
            "listeners": f"local={address},local-tls=tls://{self.tls_address}",
            "tls_folder": folder / TLS_FOLDER,
            "broker_listener": self.for_brokers,
            **METRICS,
        }
        super().__init__(name, ["namesrv"], folder, address, "NameServer listens", {**own, **settings})


class BrokerNode(Node):
    def __init__(self, name: str, folder: Path, namesrvs: Sequence[NamesrvNode], settings: Settings) -> None:
        address, self.tls_address = free_address(), free_address()
        self.data = folder / name
        own = {
            "name": name,
            "data": self.data,
            "listeners": f"local={address},local-tls=tls://{self.tls_address}",
            "tls_folder": folder / TLS_FOLDER,
            "namesrv": ",".join(node.for_brokers for node in namesrvs),
            # Small, so that a start writes little.
            "segment_bytes": 4 << 20,
            **METRICS,
        }
        super().__init__(name, ["broker"], folder, address, "broker serves", {**own, **settings})


class AdminNode(Node):
    def __init__(self, folder: Path, namesrvs: Sequence[NamesrvNode]) -> None:
        address = free_address()
        settings = {"listen": address, "namesrv": ",".join(node.address for node in namesrvs), **METRICS}
        super().__init__("admin", ["admin", "serve"], folder, address, "admin service listens", settings)


class System:
    """What a user has in front of him, whatever processes it is made of."""

    def __init__(self, folder: Path, namesrv: str, tls_namesrv: str, ca: Path, admin: str) -> None:
        self.folder = folder
        self.namesrv = namesrv
        """For clients: the access points, separated by commas."""
        self.tls_namesrv = tls_namesrv
        """The same for clients with TLS."""
        self.ca = ca
        """Whom they have to believe."""
        self.admin_address = admin

    @property
    def nodes(self) -> Sequence[Process]:
        raise NotImplementedError

    @property
    def broker_addresses(self) -> Sequence[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Returns when it serves as a whole."""
        raise NotImplementedError

    def dispose(self) -> None:
        for node in self.nodes:
            node.dispose()

    def environment(self) -> dict[str, str]:
        return {**clean_environment(), "KOUROU_NAMESRV": self.namesrv, "KOUROU_ADMIN": self.admin_address}

    def kourou(self, *args: str | Path, code: int = 0, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Runs the `kourou` command against this system, to its end."""
        done = subprocess.run(
            [BIN / "kourou", *args],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=self.environment(),
            timeout=COMMAND_TIMEOUT_S,
        )
        text = subprocess.CompletedProcess(args, done.returncode, done.stdout.decode(), done.stderr.decode())
        assert done.returncode == code, f"kourou {args}: {done.returncode}\n{text.stdout}{text.stderr}"
        return text

    def faults(self) -> Iterator[str]:
        """What no process of ours may write, whatever happens to it."""
        for node in self.nodes:
            for line in node.output_path.read_text(errors="replace").splitlines():
                if "Traceback" in line or '"exception"' in line or "stopped by a fault" in line:
                    yield f"{node.name}: {line}"


class Cluster(System):
    """NameServers, brokers and the admin service, each a process."""

    def __init__(
        self,
        folder: Path,
        *,
        namesrvs: int = 2,
        brokers: int = 2,
        namesrv: Settings | None = None,
        broker: Settings | None = None,
    ) -> None:
        self.namesrvs = [NamesrvNode(f"namesrv-{number + 1}", folder, namesrv or {}) for number in range(namesrvs)]
        self.brokers = [
            BrokerNode(f"broker-{letter}", folder, self.namesrvs, broker or {}) for letter in "abcdef"[:brokers]
        ]
        self.admin = AdminNode(folder, self.namesrvs)
        plain = ",".join(node.address for node in self.namesrvs)
        safe = ",".join(node.tls_address for node in self.namesrvs)
        super().__init__(folder, plain, safe, folder / TLS_FOLDER / "ca.pem", self.admin.address)

    @property
    def nodes(self) -> Sequence[Node]:
        return [*self.namesrvs, *self.brokers, self.admin]

    @property
    def broker_addresses(self) -> Sequence[str]:
        return [broker.address for broker in self.brokers]

    def start(self) -> None:
        for node in (*self.namesrvs, *self.brokers):
            node.launch()
        for namesrv in self.namesrvs:
            namesrv.wait_until_ready()
        # Not before: gRPC would let a second pass after an attempt to connect that came too early.
        self.admin.launch()
        for node in self.nodes:
            node.wait_until_ready()
        for broker in self.brokers:
            self.wait_until_registered(broker)

    def wait_until_registered(self, broker: BrokerNode, timeout_s: float = 15.0) -> None:
        """With every NameServer that runs."""
        for namesrv in self.namesrvs:
            if namesrv.running:
                _wait_for_registration(broker, namesrv, timeout_s)

    def broker(self, name: str) -> BrokerNode:
        return next(broker for broker in self.brokers if broker.name == name)


class Dev(System):
    """`kourou dev`."""

    def __init__(self, folder: Path, **settings: object) -> None:
        ports = [free_port() for _ in range(6)]
        self.data = folder / "data"
        flags = {
            "data": self.data,
            "port": ports[0],
            "registration_port": ports[1],
            "broker_port": ports[2],
            "admin_port": ports[3],
            "tls_port": ports[4],
            "broker_tls_port": ports[5],
            "metrics_port": 0,
            **settings,
        }
        self.node = Node("dev", ["dev"], folder, f"127.0.0.1:{ports[0]}", "Kourou is up", flags)
        self._broker_address = f"127.0.0.1:{ports[2]}"
        plain, safe, admin = (f"127.0.0.1:{ports[number]}" for number in (0, 4, 3))
        super().__init__(folder, plain, safe, self.data / TLS_FOLDER / "ca.pem", admin)

    @property
    def nodes(self) -> Sequence[Process]:
        return [self.node]

    @property
    def broker_addresses(self) -> Sequence[str]:
        return [self._broker_address]

    def start(self) -> None:
        self.node.start()


def processes_below(pid: int) -> list[int]:
    """What a process has started and is still there (Linux)."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def free_address() -> str:
    return f"127.0.0.1:{free_port()}"


def _wait_for_registration(broker: BrokerNode, namesrv: NamesrvNode, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not any('"registered"' in line and namesrv.for_brokers in line for line in broker.output.splitlines()):
        assert broker.running, f"{broker.name} ended:\n{broker.output}"
        assert time.monotonic() < deadline_s, f"{broker.name} is not registered with {namesrv.name}:\n{broker.output}"
        time.sleep(0.02)
