"""Apache RocketMQ: a NameServer, and a proxy with the broker in it (the proxy's local mode)."""

import json
import socket
from collections.abc import Sequence

from benchmarks.process import free_port
from benchmarks.rivals import remoting
from benchmarks.rivals.install import java, maven_install
from benchmarks.rivals.system import GROUP, QUEUES, Participant, Servers, System

_CLUSTER, _BROKER = "DefaultCluster", "broker-a"
_NAMESRV_HEAP, _BROKER_HEAP = "256m", "1g"
_JAVA_OPTIONS = (
    *("-server", "-XX:+UseG1GC", "-XX:G1HeapRegionSize=16m", "-XX:G1ReservePercent=25"),
    *("-XX:InitiatingHeapOccupancyPercent=30", "-XX:SoftRefLRUPolicyMSPerMB=0"),
    *("-XX:-OmitStackTraceInFastThrow", "-XX:+AlwaysPreTouch", "-XX:MaxDirectMemorySize=15g", "-XX:-UseLargePages"),
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
)
"""As RocketMQ's own start scripts set them, but for the heap: 8 GiB there."""


class RocketmqServers(Servers):
    def prepare(self) -> None:
        self._namesrv = f"127.0.0.1:{free_port()}"
        self._grpc = f"127.0.0.1:{free_port()}"
        self._broker = f"127.0.0.1:{_port_with_neighbours()}"
        broker = {
            "brokerClusterName": _CLUSTER,
            "brokerName": _BROKER,
            "brokerId": "0",
            "brokerIP1": "127.0.0.1",
            "bindAddress": "127.0.0.1",
            "listenPort": self._broker.partition(":")[2],
            "namesrvAddr": self._namesrv,
            "storePathRootDir": str(self.folder / "store"),
            "storePathCommitLog": str(self.folder / "store/commitlog"),
            **self.participant.settings,
        }
        (self.folder / "broker.conf").write_text(_properties(broker))
        namesrv = {"listenPort": self._namesrv.partition(":")[2], "bindAddress": "127.0.0.1"}
        (self.folder / "namesrv.conf").write_text(_properties(namesrv))
        proxy = {
            "rocketMQClusterName": _CLUSTER,
            "namesrvAddr": self._namesrv,
            "proxyMode": "LOCAL",
            "grpcServerPort": int(self._grpc.partition(":")[2]),
            "remotingListenPort": free_port(),
        }
        (self.folder / "proxy.json").write_text(json.dumps(proxy))

    @property
    def address(self) -> str:
        return self._grpc

    def start(self) -> None:
        main = "org.apache.rocketmq.namesrv.NamesrvStartup"
        self._spawn("namesrv", _NAMESRV_HEAP, main, "-c", "namesrv.conf")
        self.wait_listening(self._namesrv)
        main = "org.apache.rocketmq.proxy.ProxyStartup"
        self._spawn("proxy", _BROKER_HEAP, main, "-n", self._namesrv, "-bc", "broker.conf", "-pc", "proxy.json")
        self.wait_listening(self._broker)
        self.wait_listening(self._grpc)
        # It takes clients before its own NameServer knows it.
        self.wait_until("has registered", lambda: remoting.registered(self._namesrv, _CLUSTER))

    def create_topics(self, names: Sequence[str]) -> None:
        remoting.create_group(self._broker, GROUP)
        for name in names:
            remoting.create_topic(self._broker, name, QUEUES)
        for name in names:
            self.wait_until(f"knows topic {name}", lambda name=name: remoting.has_route(self._namesrv, name))

    def _spawn(self, name: str, heap: str, main: str, *arguments: str) -> None:
        files = [str(self.folder / each) if each.endswith((".conf", ".json")) else each for each in arguments]
        sizes = (f"-Xms{heap}", f"-Xmx{heap}")
        home = (f"-Duser.home={self.folder}", f"-Drocketmq.home.dir={self.folder}")  # of its logs
        command = [java(), *sizes, *_JAVA_OPTIONS, *home, "-cp", f"{self.installed}/*", main, *files]
        environment = {"ROCKETMQ_HOME": str(self.folder), "RMQ_PROXY_HOME": str(self.folder)}
        self.spawn(name, command, environment)


def _properties(values: dict[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _port_with_neighbours() -> int:
    """The broker also listens two below and one above."""
    while True:
        port = free_port()
        try:
            for each in (port - 2, port, port + 1):
                socket.create_server(("127.0.0.1", each)).close()
        except OSError:
            continue
        return port


_CLIENT = "rocketmq-python-client: send_async, PushConsumer"

SYSTEM = System(
    "rocketmq",
    (
        Participant(
            "rocketmq-async",
            durability="in the page cache; on the disk within 500 ms (ASYNC_FLUSH)",
            configuration=f"NameServer, proxy with broker in local mode, heaps {_NAMESRV_HEAP} and {_BROKER_HEAP}; "
            f"{_CLIENT}",
            settings={"flushDiskType": "ASYNC_FLUSH"},
            warmup_s=8,
            compiled=True,
        ),
        Participant(
            "rocketmq-sync",
            durability="on the disk (SYNC_FLUSH, group commit)",
            configuration="the same with flushDiskType=SYNC_FLUSH",
            settings={"flushDiskType": "SYNC_FLUSH"},
            warmup_s=8,
            compiled=True,
        ),
    ),
    RocketmqServers,
    lambda cache: maven_install(cache, "rocketmq"),
)
