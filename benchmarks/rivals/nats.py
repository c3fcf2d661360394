"""NATS JetStream: one server, file storage, a stream a topic."""

from benchmarks.process import free_port
from benchmarks.rivals.install import go_install
from benchmarks.rivals.system import Participant, Servers, System

_MODULE, _VERSION = "github.com/nats-io/nats-server/v2", "v2.15.3"
_CONFIGURATION = """\
listen: {address}
jetstream {{
  store_dir: "{store}"
  sync_interval: {sync_interval}
}}
"""


class NatsServers(Servers):
    _port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def prepare(self) -> None:
        self._port = free_port()
        text = _CONFIGURATION.format(address=self.address, store=self.folder / "store", **self.participant.settings)
        (self.folder / "nats.conf").write_text(text)

    def start(self) -> None:
        self.spawn("nats", [str(self.installed / "nats-server"), "--config", str(self.folder / "nats.conf")])
        self.wait_listening(self.address)


SYSTEM = System(
    "nats",
    (
        Participant(
            "nats-default",
            durability="in the page cache; on the disk within 2 min (sync_interval)",
            configuration="JetStream, file storage, one replica; publish_async, pull consumer with explicit acks",
            settings={"sync_interval": "2m"},
        ),
        Participant(
            "nats-sync",
            durability="on the disk (fsync for each message)",
            configuration="the same with sync_interval: always",
            settings={"sync_interval": "always"},
        ),
    ),
    NatsServers,
    lambda cache: go_install(cache / f"nats-{_VERSION}", f"{_MODULE}@{_VERSION}"),
)
