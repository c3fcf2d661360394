"""All settings of a broker: each stands here once, and gives its flag, variable, line in the file, default and help."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kourou_service.listener import HostPort, Listener, ListenersSetting, OptionalAddressSetting, TargetsSetting
from kourou_service.tls.settings import TlsSettings

_MIB = 1024 * 1024
_NAME = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$"
_DEFAULT_LISTENERS = tuple(map(Listener.parse, ("local=127.0.0.1:10911", "local-tls=tls://127.0.0.1:10921")))


class BrokerSettings(TlsSettings):
    command: ClassVar[str] = "broker"

    cluster: Annotated[str, Field(pattern=_NAME, description="The cluster's name.")] = "kourou"
    name: Annotated[str, Field(pattern=_NAME, description="The shard's name, unique in the cluster.")] = "broker-a"
    data: Path = Field(
        default=Path("data/broker-a"), description="The folder that holds the log; it belongs to this broker alone."
    )
    listeners: ListenersSetting = Field(
        default=_DEFAULT_LISTENERS,
        description="Where clients reach the broker: name=[tls://]bind[/advertised], separated by commas.",
    )
    fallback_listener: str = Field(
        default="local", description="The listener whose addresses are answered when a call does not tell how it came."
    )
    forward_listener: str = Field(
        default="",
        description="The brokers' listener by which this one reaches the others; empty: the fallback listener.",
    )
    namesrv: TargetsSetting = Field(
        default=("127.0.0.1:9876",),
        description="NameServers' listeners for brokers, host:port with commas; names are resolved to all addresses.",
    )
    metrics_listen: OptionalAddressSetting = Field(
        default=HostPort("127.0.0.1", 5557), description="Where /metrics and /health are, host:port; empty: nowhere."
    )
    resolve_interval_s: float = Field(
        default=30, gt=0, description="How often names of NameServers are resolved again, seconds."
    )
    heartbeat_interval_s: float = Field(
        default=30, gt=0, description="How often a silent broker tells NameServers that it lives, seconds."
    )

    flush: Literal["sync", "async"] = Field(
        default="sync", description="sync: a message is on the disk before it is acknowledged; async: it is soon after."
    )
    flush_interval_ms: int = Field(
        default=500, gt=0, description="With flush=async: the longest time before the disk has it, ms."
    )
    segment_bytes: int = Field(
        default=64 * _MIB, ge=_MIB, le=1024 * _MIB, description="Size of a segment of the log, bytes."
    )
    cache_bytes: int = Field(
        default=16 * _MIB, ge=0, description="The newest part of the log that is kept in memory, bytes."
    )
    max_waiting_bytes: int = Field(
        default=64 * _MIB,
        ge=_MIB,
        description="Bytes that may wait for the disk; beyond them sends get TOO_MANY_REQUESTS.",
    )
    publish_window_bytes: int = Field(
        default=8 * _MIB,
        ge=_MIB,
        description="Bytes of batches that one Publish stream may have without an answer.",
    )
    retention_hours: float = Field(
        default=72, ge=0, description="Messages older than that go, segment by segment; 0: never. Hours."
    )
    retention_bytes: int = Field(
        default=0, ge=0, description="The log's size beyond which its oldest segments go; 0: no limit. Bytes."
    )
    retention_interval_s: float = Field(default=10, gt=0, description="How often retention is checked, seconds.")
    snapshot_every_bytes: int = Field(
        default=256 * _MIB,
        ge=_MIB,
        description="A snapshot is taken after so much new log; it bounds the time of a start. Bytes.",
    )
    disk_watermark_bytes: int = Field(
        default=512 * _MIB, ge=0, description="With less free space on the disk, new messages are refused. Bytes."
    )

    max_delay_days: float = Field(
        default=40,
        gt=0,
        le=3650,
        description="The furthest delivery time of a delayed message, from its sending; later ones are refused. Days.",
    )
    dedup_window_s: float = Field(
        default=120,
        ge=0,
        le=3600,
        description="A message that is sent again within so long is not stored a second time; 0: it is. Seconds.",
    )
    dedup_max_ids: int = Field(
        default=100_000,
        ge=0,
        le=1_000_000,
        description="Messages of which the ids are kept for that; with more the time is shorter. 0: none.",
    )

    scrub_interval_s: float = Field(
        default=600, gt=0, description="How often one sealed segment is verified in the background, seconds."
    )

    auto_create_groups: bool = Field(default=False, description="Make an unknown consumer group when it is first used.")
    max_pending_messages: int = Field(
        default=65536,
        ge=1,
        description="Messages of one queue that a group may hold unacknowledged; then it gets no new ones.",
    )
    max_lite_topics: int = Field(
        default=20_000, ge=1, description="Lite topics that the broker holds, in all topics; a further one is refused."
    )
    invisible_time_ms: int = Field(
        default=60_000, ge=1000, description="How long a message is lent when the client does not say, ms."
    )
    transaction_check_after_s: float = Field(
        default=6,
        gt=0,
        description="A transaction open for so long: its producer is asked what became of it; a message may say "
        "another time. Seconds.",
    )
    transaction_check_interval_s: float = Field(
        default=30, gt=0, description="How long after a question about a transaction the next one is asked, seconds."
    )
    transaction_max_checks: int = Field(
        default=15, ge=1, description="A transaction still open after so many questions is rolled back."
    )
    transaction_max_age_hours: float = Field(
        default=72, gt=0, description="A transaction still open after so long is rolled back, asked or not. Hours."
    )
    max_open_transactions: int = Field(
        default=100_000, ge=1, description="Transactions open at a time; more are refused until some have ended."
    )
    client_silence_s: float = Field(
        default=60, gt=0, description="A client without a stream is gone after so long a silence, seconds."
    )
    client_stream_grace_s: float = Field(
        default=5, gt=0, description="A client whose stream broke has so long to come back, seconds."
    )
    max_clients: int = Field(default=10_000, ge=1, description="Clients that may be connected at a time.")
