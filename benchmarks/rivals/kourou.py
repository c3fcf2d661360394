"""Kourou: one NameServer and one broker, with default settings but `flush`."""

from collections.abc import Sequence
from pathlib import Path

import grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from benchmarks.rivals.applications.kourou import has_doors
from benchmarks.rivals.system import GROUP, NotInstalled, Participant, Servers, System
from benchmarks.servers import Cluster

_DURABILITY = {
    "sync": "on the disk (fdatasync, group commit)",
    "async": "in the page cache; on the disk within 500 ms",
}


class KourouServers(Servers):
    _cluster: Cluster

    @property
    def address(self) -> str:
        return self._cluster.access_point

    @property
    def compiled_address(self) -> str:
        return self._cluster.broker.address

    def start(self) -> None:
        flags = [part for name, value in self.participant.settings.items() for part in (f"--{name}", value)]
        self._cluster = Cluster(self.folder / "cluster", broker_flags=flags)
        self.processes = [self._cluster.namesrv, self._cluster.broker.process]
        self._cluster.wait_ready()
        if self.participant.door == "stream" and not _has_stream_door(self.compiled_address):
            raise NotInstalled("the broker here has no stream door, and the library would go by the other one")

    def __exit__(self, *error: object) -> None:
        if self.processes:
            self._cluster.__exit__(*error)

    def create_topics(self, names: Sequence[str]) -> None:
        self._cluster.broker.put_topics(names)
        self._cluster.broker.put_group(GROUP)


def _has_stream_door(broker: str) -> bool:
    with grpc.insecure_channel(broker) as channel:
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
    return any(name.startswith("kourou.stream.") for name in services)


def _participant(flush: str, door: str) -> Participant:
    return Participant(
        f"kourou-{flush}-{door}",
        durability=_DURABILITY[flush],
        configuration=f"flush={flush}; AsyncProducer.send_many, AsyncSimpleConsumer by the door {door!r}",
        settings={"flush": flush},
        door=door,
        compiled=door == "rocketmq",
    )


def _missing(participant: Participant) -> str:
    return "" if participant.door == "rocketmq" or has_doors() else "the library here has no stream door"


def _install(_cache: Path) -> Path:
    return Path()  # it is this checkout


SYSTEM = System(
    "kourou",
    tuple(_participant(flush, door) for flush in ("sync", "async") for door in ("stream", "rocketmq")),
    KourouServers,
    _install,
    _missing,
)
