"""Apache Kafka: one process that is broker and KRaft controller."""

import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from benchmarks.process import free_port
from benchmarks.rivals.install import java, maven_install
from benchmarks.rivals.system import QUEUES, NotInstalled, Participant, Servers, System

_JAVA_OPTIONS = (
    *("-Xms1g", "-Xmx1g", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
    *("-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true"),
)
"""As Kafka's own start script sets them."""
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "num.partitions": str(QUEUES),
    # One broker only.
    "offsets.topic.replication.factor": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    # Else each consumer waits three seconds for others that could join it.
    "group.initial.rebalance.delay.ms": "0",
}


class KafkaServers(Servers):
    _port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def prepare(self) -> None:
        self._port = free_port()
        controller = f"127.0.0.1:{free_port()}"
        properties = {
            **_PROPERTIES,
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{controller}",
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self.folder / "logs"),
            **self.participant.settings,
        }
        self._configuration.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = ("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._configuration))
        done = subprocess.run(self._java(*tool), capture_output=True, text=True)
        if done.returncode:
            raise NotInstalled(f"its folder cannot be formatted: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    def start(self) -> None:
        self.spawn("kafka", self._java("kafka.Kafka", str(self._configuration)))
        self.wait_listening(self.address)

    @property
    def _configuration(self) -> Path:
        return self.folder / "server.properties"

    def _java(self, *arguments: str) -> list[str]:
        return [java(), *_JAVA_OPTIONS, "-cp", f"{self.installed}/*", *arguments]


_CLIENT = "confluent-kafka, acks=all; commits after every poll of at most 500 messages; linger.ms=0 for single messages"

SYSTEM = System(
    "kafka",
    (
        Participant(
            "kafka-default",
            durability="in the page cache; on the disk when the system writes it",
            configuration=f"KRaft, {QUEUES} partitions, heap 1 GiB; {_CLIENT}",
            warmup_s=8,
        ),
        Participant(
            "kafka-flush",
            durability="on the disk (fsync for each append, of whatever it holds)",
            configuration="the same with log.flush.interval.messages=1",
            settings={"log.flush.interval.messages": "1"},
            warmup_s=8,
        ),
    ),
    KafkaServers,
    lambda cache: maven_install(cache, "kafka"),
)
