"""RabbitMQ: one node, a quorum queue a topic."""

import os
from pathlib import Path

from benchmarks.process import free_port
from benchmarks.rivals.install import debian_install
from benchmarks.rivals.system import Participant, Servers, System

_CONFIGURATION = """\
listeners.tcp.local = {address}
log.console = true
log.console.level = warning
"""


class RabbitServers(Servers):
    _port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def prepare(self) -> None:
        self._port = free_port()
        (self.folder / "rabbitmq.conf").write_text(_CONFIGURATION.format(address=self.address))
        (self.folder / "plugins").write_text("[].\n")

    def start(self) -> None:
        binaries = [self.installed / "usr/lib/erlang/bin", self.installed / "usr/lib/rabbitmq/bin"]
        environment = {
            "HOME": str(self.folder),  # of the cookie
            "PATH": ":".join([*map(str, binaries), os.environ["PATH"]]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(free_port()),
            "RABBITMQ_NODENAME": "bench@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            # The script then becomes the server, instead of standing before it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        # Else the node starts one of its own, which stays when it ends.
        self.spawn("epmd", [str(binaries[0] / "epmd")], environment)
        self.spawn("rabbitmq", ["/bin/sh", str(binaries[1] / "rabbitmq-server")], environment)
        self.wait_listening(self.address)


def _install(cache: Path) -> Path:
    folder = debian_install(cache / "rabbitmq", "rabbitmq-server")
    erl = folder / "usr/lib/erlang/bin/erl"
    # Debian's names where it would be installed, whatever the environment says.
    erl.write_text(erl.read_text().replace("ROOTDIR=/usr/lib/erlang\n", f"ROOTDIR={folder}/usr/lib/erlang\n"))
    return folder


SYSTEM = System(
    "rabbitmq",
    (
        Participant(
            "rabbitmq-quorum",
            durability="on the disk (quorum queue: fdatasync of the Raft log, in groups)",
            configuration="quorum queue, persistent messages; aio-pika with publisher confirms, prefetch 1000, "
            "acks of up to 100 at once",
            warmup_s=2,
        ),
    ),
    RabbitServers,
    _install,
)
